"""DVC's charts and matplotlib's pictures speak the same language."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import vl_convert

from mnist_cnn.models import MODELS
from mnist_cnn.report.figures.style import COLOURS, MARKERS, model_style
from mnist_cnn.settings.params import load
from tests.helpers import ROOT

TEMPLATES = {path.stem: json.loads(path.read_text()) for path in (ROOT / ".dvc/plots").glob("*.json")}
OF_MODELS = ("accuracies", "curves", "losses")
# Vega's names of matplotlib's markers; the last two it has no name for, they are drawn.
SHAPES = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross"}


def encodings(node: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every channel of a chart with what it shows, in whichever layer."""
    if isinstance(node, list):
        for item in node:
            yield from encodings(item)
    elif isinstance(node, dict):
        yield from node.get("encoding", {}).items()
        for item in node.values():
            yield from encodings(item)


def scaled(template: str, field: str, *channels: str) -> list[dict[str, Any]]:
    return [
        encoding
        for channel, encoding in encodings(TEMPLATES[template])
        if channel in channels and encoding.get("field") == field
    ]


def domain(encoding: dict[str, Any]) -> list[str]:
    """The models that have a look of their own, in its order: those that are listed, then those of the data."""
    assert encoding["sort"] is None
    return list(dict.fromkeys([*encoding["scale"]["domain"]["unionWith"], *MODELS]))


@pytest.mark.parametrize("template", [*OF_MODELS, "splits", "recall"])
def test_a_model_has_the_same_colour_in_both(template: str) -> None:
    found = scaled(template, "model", "color", "stroke", "fill")
    assert found
    for encoding in found:
        assert domain(encoding) == list(MODELS)
        assert encoding["scale"]["range"] == list(COLOURS)
    for colour, name in zip(COLOURS, MODELS, strict=False):
        assert model_style(name)[0] == colour


@pytest.mark.parametrize("template", OF_MODELS)
def test_a_model_has_the_same_shape_in_both(template: str) -> None:
    [encoding] = scaled(template, "model", "shape")
    assert domain(encoding) == list(MODELS)
    scale = encoding["scale"]
    assert len(scale["range"]) == len(MARKERS)
    for shape, marker in zip(scale["range"], MARKERS, strict=True):
        assert shape == SHAPES[marker] if marker in SHAPES else shape.startswith("M")


def test_there_are_looks_for_the_storys_models_and_one_more() -> None:
    assert len(COLOURS) == len(set(COLOURS)) == len(MARKERS) == len(set(MARKERS)) == 8


@pytest.mark.parametrize("template", [*OF_MODELS, "splits"])
def test_revisions_are_told_apart_by_dashes_where_models_are_by_colour(template: str) -> None:
    dashed = [encoding["field"] for channel, encoding in encodings(TEMPLATES[template]) if channel == "strokeDash"]
    assert dashed == ["rev"]


@pytest.mark.parametrize("template", ["accuracies", "splits"])
def test_the_target_is_the_settings(template: str) -> None:
    target = load(ROOT / "params.yaml").targets.test_accuracy
    rule, text = (layer for layer in TEMPLATES[template]["layer"] if "data" in layer)
    assert rule["mark"]["type"] == "rule" and text["mark"]["text"] == ["target", f"{target:g} %"]
    assert rule["data"] == text["data"] == {"values": [{"accuracy": target}]}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chart_is_one_of_vega_lites(template: str) -> None:
    vl_convert.vegalite_to_vega(TEMPLATES[template] | {"data": {"values": []}}, vl_version="5.8")
