"""DVC's charts and matplotlib's pictures speak the same language."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import vl_convert

from mnist_cnn.models import MODELS
from mnist_cnn.report.figures.style import COLOURS, MARKERS, model_style
from mnist_cnn.settings.story import load_story
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


@pytest.mark.parametrize("template", OF_MODELS)
def test_a_model_that_is_pointed_at_or_whose_name_is_chosen_stands_out(template: str) -> None:
    dimmed = [encoding for channel, encoding in encodings(TEMPLATES[template]) if channel == "opacity"]
    assert len(dimmed) == 2  # lines and points
    assert all(
        encoding["condition"]["test"] == {"and": [{"param": "pointed"}, {"param": "chosen"}]} for encoding in dimmed
    )


@pytest.mark.parametrize("template", OF_MODELS)
def test_markers_lie_on_one_another_in_the_models_order(template: str) -> None:
    listed = TEMPLATES[template]["transform"][0]["calculate"]
    assert listed == f"indexof({list(load_story(ROOT / 'story.yaml', 'mnist'))}, datum.model)"


def marks(template: str, rows: list[dict[str, Any]], **anchors: str) -> dict[str, list[dict[str, Any]]]:
    """The items of a chart as drawn, by their kind; ``anchors`` are the names of columns that DVC fills in."""
    text = json.dumps(TEMPLATES[template])
    for anchor, column in anchors.items():
        text = text.replace(f"<DVC_METRIC_{anchor}>", column)
    # As DVC hands them over.
    values = [{key: str(value) for key, value in row.items()} | {"rev": "workspace"} for row in rows]
    scene = vl_convert.vegalite_to_scenegraph(json.loads(text) | {"data": {"values": values}}, vl_version="5.8")
    found: dict[str, list[dict[str, Any]]] = {}

    def collect(node: dict[str, Any]) -> None:
        for item in node.get("items", []):
            if node.get("role") == "mark":
                found.setdefault(node["marktype"], []).append(item)
            collect(item)

    collect(scene["scenegraph"])
    return found


def history(model: str, accuracies: list[float]) -> list[dict[str, Any]]:
    """Rows of a model's history, as DVC hands them to whichever chart."""
    return [
        {
            "model": model, "filename": f"plots/history/{model}.csv", "epoch": epoch, "learning_rate": 0.1,
            "train_accuracy": accuracy, "val_accuracy": accuracy, "loss": 2 - accuracy / 60, "field": "val_loss",
        }
        for epoch, accuracy in enumerate(accuracies, 1)
    ]  # fmt: skip


HISTORIES = [*history("model_1", [11.35, 95.0, 99.5, 100.0]), *history("model_2", [11.35])]


@pytest.mark.parametrize(
    ("template", "column", "count"),
    [
        ("accuracies", "val_accuracy", 5),
        ("curves", "learning_rate", 5),
        ("losses", "loss", 5),
        ("splits", "val_accuracy", 8),
    ],
)
def test_curves_show_every_epoch_and_no_target_of_the_test_set(template: str, column: str, count: int) -> None:
    drawn = marks(template, HISTORIES[:4] if template == "splits" else HISTORIES, X="epoch", Y=column)
    points, height = drawn["symbol"], TEMPLATES[template].get("spec", TEMPLATES[template])["height"]
    assert len(points) == count
    assert all(0 <= point["y"] <= height for point in points)
    assert all(point["size"] > 0 for point in points) or template == "curves"
    assert "rule" not in drawn and "text" not in drawn


def test_markers_of_equal_learning_rates_stand_side_by_side_and_a_single_epoch_has_one() -> None:
    rows = [row for name in ("model_6", "model_7") for row in history(name, [99.0] * 15)] + history("model_1", [99.0])
    shown = [point for point in marks("curves", rows, X="epoch", Y="learning_rate")["symbol"] if point["size"]]
    places = [round(point["x"], 3) for point in shown]
    assert len(shown) == 11 and len({*places[:10]}) == 10


def test_cells_of_the_confusion_matrix_are_coloured_where_something_is_wrong() -> None:
    counts = {(0, 0): 9, (0, 1): 1, (1, 0): 0, (1, 1): 1000}
    rows = [{"actual": a, "predicted": p, "count": count} for (a, p), count in counts.items()]
    drawn = marks("confusion_counts", rows, X="predicted", Y="actual")
    right, wrong, empty, _ = (cell["fill"] for cell in drawn["rect"])
    assert empty == "white" and len({right, wrong, empty}) == 3
    assert sorted(item["text"] for item in drawn["text"]) == ["1", "1,000", "9"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chart_is_one_of_vega_lites(template: str) -> None:
    vl_convert.vegalite_to_vega(TEMPLATES[template] | {"data": {"values": []}}, vl_version="5.8")
