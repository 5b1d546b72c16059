"""DVC's charts and matplotlib's pictures speak the same language."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_cnn import plotting
from mnist_cnn.models import MODELS
from mnist_cnn.plotting import model_style

ROOT = Path(__file__).parents[2]
TEMPLATES = {path.stem: json.loads(path.read_text()) for path in (ROOT / ".dvc/plots").glob("*.json")}
# Matplotlib's markers by Vega's names for them.
SHAPES = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "cross": "P",
    "triangle-right": ">",
    "triangle-left": "<",
}


def nodes(node: object) -> Iterator[dict[str, Any]]:
    """Every mapping in a template, however deep."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, dict | list):
        for item in node.values() if isinstance(node, dict) else node:
            yield from nodes(item)


def encodings(template: str, channel: str) -> list[dict[str, Any]]:
    return [node[channel] for node in nodes(TEMPLATES[template]) if isinstance(node.get(channel), dict)]


@pytest.mark.parametrize("template", ["accuracy", "curves", "losses"])
def test_a_model_has_the_same_colour_and_marker_in_both(template: str) -> None:
    for encoding in encodings(template, "color"):
        assert encoding["field"] == "model" and encoding["scale"]["domain"] == list(MODELS)
        # One more than there are models: a model that joins them has the colour that comes next, in both.
        assert encoding["scale"]["range"] == list(plotting._COLOURS)
    for encoding in encodings(template, "shape"):
        assert encoding["scale"]["domain"] == list(MODELS)
        assert [SHAPES[shape] for shape in encoding["scale"]["range"]] == list(plotting._MARKERS)
    assert [model_style(name)[0] for name in MODELS] == list(plotting._COLOURS[: len(MODELS)])
    assert encodings(template, "color") and encodings(template, "shape")


def test_revisions_are_told_apart_in_every_chart() -> None:
    for template, channel in {
        "accuracy": "strokeDash",
        "curves": "strokeDash",
        "losses": "strokeDash",
        "parts": "strokeDash",
        "recall": "color",
        "confusion_counts": "column",
    }.items():
        assert "rev" in {encoding.get("field") for encoding in encodings(template, channel)}, template
    assert len(TEMPLATES) == 6


def test_the_target_line_is_the_settings() -> None:
    target = yaml.safe_load((ROOT / "params.yaml").read_text())["targets"]["test_accuracy"]
    for template in ("accuracy", "parts"):
        places = [node["y"]["datum"] for node in nodes(TEMPLATES[template]) if "datum" in node.get("y", {})]
        assert places == [target, target]
        assert f'"target {target} % (test)"' in json.dumps(TEMPLATES[template])


def test_every_axis_has_a_title_that_dvc_fills_in_and_every_such_title_is_set() -> None:
    for template in TEMPLATES:
        for axis in ("x", "y"):
            for encoding in encodings(template, axis):
                if "field" in encoding:
                    assert encoding["title"] == f"<DVC_METRIC_{axis.upper()}_LABEL>"
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    charts = [chart for part in ("train", "evaluate") for chart in pipeline["stages"][part]["do"]["plots"]]
    charts += [chart for chart in pipeline["plots"] if isinstance(chart, dict)]
    for chart in charts:
        [settings] = chart.values()
        assert settings["x_label"] and settings["y_label"] and settings["template"] in TEMPLATES
