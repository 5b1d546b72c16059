"""DVC's charts and matplotlib's pictures speak the same language."""

import json
from pathlib import Path
from typing import Any

import pytest

from mnist_cnn.models import MODELS
from mnist_cnn.plotting import model_style

TEMPLATES = Path(__file__).parents[2] / ".dvc/plots"


def colour_scales(node: object) -> list[dict[str, Any]]:
    """The scales of all colour encodings by model in a chart."""
    if isinstance(node, list):
        return [scale for item in node for scale in colour_scales(item)]
    if not isinstance(node, dict):
        return []
    own = [node["scale"]] if node.get("field") == "model" and "scale" in node else []
    return own + [scale for item in node.values() for scale in colour_scales(item)]


@pytest.mark.parametrize("template", ["curves", "losses"])
def test_a_model_has_the_same_colour_in_both(template: str) -> None:
    [scale] = colour_scales(json.loads((TEMPLATES / f"{template}.json").read_text()))
    assert scale == {"domain": list(MODELS), "range": [model_style(name)[0] for name in MODELS]}


def test_revisions_are_told_apart_by_dashes_where_models_are_by_colour() -> None:
    for template in ("curves", "losses", "parts"):
        assert '"strokeDash": {\n' in (TEMPLATES / f"{template}.json").read_text()
