"""The figures: they hold the numbers they are given, look the same every time, and leave no trace."""

import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from mnist_cnn.models import MODELS
from mnist_cnn.report.figures import style
from mnist_cnn.report.figures.curves import accuracy_curves, loss_curves
from mnist_cnn.report.figures.digits import augmented_digits, confusion_matrix, misclassified_digits
from mnist_cnn.report.figures.parameters import accuracy_against_parameters
from mnist_cnn.report.figures.seeds import accuracy_over_seeds
from mnist_cnn.report.results import ModelResult
from mnist_cnn.settings.params import Augmentation, Params, StoryEntry, Targets, load
from tests.helpers import RECIPE, ROOT, noise
from tests.results import Mistake, model_result

SETTINGS = load(ROOT / "params.yaml")
TARGETS = Targets(test_accuracy=99.4, max_epochs=15, parameters_below=8000)
DIGITS = noise(3).pixels


def params_with(**references: float) -> Params:
    """Settings with reference test accuracies by model, and no others."""
    story = {
        name: StoryEntry(
            target="", reference_parameters=None, reference_train_accuracy=None, reference_test_accuracy=accuracy
        )
        for name, accuracy in references.items()
    }
    report = SETTINGS.report.model_copy(update={"story": story})
    return SETTINGS.model_copy(update={"targets": TARGETS, "report": report})


PARAMS = params_with()


def result(
    name: str = "model_2",
    mistakes: list[Mistake] | None = None,
    *,
    accuracies: tuple[float, ...] = (97.0, 98.5, 99.2),
    losses: tuple[float, ...] = (0.2, 0.1, 0.05),
    **changes: Any,  # noqa: ANN401
) -> ModelResult:
    """A made-up model, with its validation accuracy and loss by epoch; training's are worse."""
    history = {
        "epoch": range(1, 1 + len(accuracies)),
        "train_loss": [2 * loss for loss in losses],
        "train_accuracy": [value - 1 for value in accuracies],
        "val_loss": losses,
        "val_accuracy": accuracies,
    }
    return model_result(name, [(4, 9, 3), (7, 2, 2)] if mistakes is None else mistakes, history=history, **changes)


def several() -> list[ModelResult]:
    return [result(name, parameters=4000 * place) for place, name in enumerate(MODELS, 1)]


def augmented(models: list[ModelResult]) -> Figure:
    rows = [DIGITS.float() / 255, DIGITS.flip(2).float() / 255]
    return augmented_digits(DIGITS, rows, models[0].name, SETTINGS.models[SETTINGS.model])


def over_seeds(own: dict[str, list[float]], shared: dict[str, list[float]], params: Params = PARAMS) -> Figure:
    return accuracy_over_seeds(own, shared, dict.fromkeys(own, 7000), params, "model_6")


FIGURES: dict[str, Callable[[list[ModelResult]], Figure]] = {
    "accuracy": lambda models: accuracy_curves(models, SETTINGS),
    "loss": loss_curves,
    "parameters": lambda models: accuracy_against_parameters(models, SETTINGS),
    "confusion": lambda models: confusion_matrix(models[0]),
    "misclassified": lambda models: misclassified_digits(models[0], 4),
    "augmented": augmented,
    "seeds": lambda models: over_seeds({model.name: [99.0, 99.5] for model in models}, {}, SETTINGS),
}
each_figure = pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)


def saved(figure: Figure, path: Path) -> bytes:
    style.save(figure, path)
    return path.read_bytes()


def texts_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def points(line: Line2D) -> list[list[float]]:
    drawn: list[list[float]] = np.asarray(line.get_xydata()).tolist()
    return drawn


def hollow_points(axes: Axes) -> list[list[list[float]]]:
    return [points(line) for line in axes.lines if line.get_markerfacecolor() == "white" and points(line)]


@each_figure
@pytest.mark.parametrize("models", [[result()], several()], ids=["one model", "several models"])
def test_a_figure_is_saved_as_a_whole_picture_with_equal_bytes_for_equal_numbers(
    tmp_path: Path, draw: Callable[[list[ModelResult]], Figure], models: list[ModelResult]
) -> None:
    path = tmp_path / "pictures" / "figure.png"
    first = saved(draw(models), path)
    assert first.startswith(b"\x89PNG\r\n") and first.endswith(b"IEND\xaeB`\x82")
    picture = imread(path)
    height, width, _ = picture.shape
    assert min(height, width) > 200
    assert np.ptp(picture[..., :3]) == 1  # white, and something black on it
    assert saved(draw(models), path) == first
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@each_figure
def test_a_figure_neither_changes_matplotlibs_settings_nor_depends_on_them(
    tmp_path: Path, draw: Callable[[list[ModelResult]], Figure]
) -> None:
    plain = saved(draw(several()), tmp_path / "plain.png")
    # As a user's own file of settings may: styles that change nearly all of them.
    with matplotlib.style.context(["classic", "dark_background", {"font.family": "serif", "savefig.bbox": "tight"}]):
        before = dict(matplotlib.rcParams)
        assert saved(draw(several()), tmp_path / "other.png") == plain
        assert dict(matplotlib.rcParams) == before


def test_two_dozen_models_look_different_and_the_first_have_colours_and_markers_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = tuple(f"network_{letter}" for letter in "abcdefghijklmnopqrstuvwx")
    monkeypatch.setattr(style, "MODELS", names)
    looks = [style.model_style(name) for name in names]
    assert len(set(looks)) == len({look[:2] for look in looks}) == 24
    first = len(style.COLOURS)
    assert [look[:2] for look in looks[:first]] == list(zip(style.COLOURS, style.MARKERS, strict=True))
    # Those of one colour have different dashes too, by which their curves are told apart.
    for colour in style.COLOURS:
        assert len({dash for own, _, dash in looks if own == colour}) == 3


def crowd(count: int, stem: str, apart: float) -> list[ModelResult]:
    """Models of much the same accuracy, each so much larger than the one before."""
    return [
        result(
            f"{stem}{place + 1}",
            [(4, 9, 44 + 7 * (place % 4))],
            parameters=round(7000 * apart**place),
            accuracies=(97.0, 98.5, 99.2 + place / 100),
        )
        for place in range(count)
    ]


def written(figure: Figure) -> list[tuple[str, Bbox]]:
    """The texts that are drawn when a figure is saved, with their boxes."""
    figure.set_dpi(150)
    figure.draw_without_rendering()
    drawn: list[Text] = []
    draw = Text.draw

    def note(text: Text, renderer: RendererBase) -> None:
        drawn.append(text)
        draw(text, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", note)
        FigureCanvasAgg(figure).draw()
    return [(text.get_text(), text.get_window_extent()) for text in drawn if text.get_text()]


def overlapping(boxes: dict[str, Bbox]) -> list[tuple[str, str]]:
    return [(one, other) for one, other in combinations(boxes, 2) if boxes[one].overlaps(boxes[other])]


@pytest.mark.parametrize(
    ("count", "stem", "apart"),
    [(1, "residual_gelu_", 1), (3, "model_", 1.02), (12, "residual_gelu_", 1.4)],
)
@each_figure
def test_any_number_of_models_fits_into_the_picture(
    monkeypatch: pytest.MonkeyPatch, draw: Callable[[list[ModelResult]], Figure], count: int, stem: str, apart: float
) -> None:
    models = crowd(count, stem, apart)
    monkeypatch.setattr(style, "MODELS", tuple(model.name for model in models))
    figure = draw(models)
    texts = written(figure)
    assert texts
    for text, box in texts:
        assert 0 <= box.x0 and box.x1 <= figure.bbox.width and 0 <= box.y0 and box.y1 <= figure.bbox.height, text
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert 0 <= box.x0 and box.x1 <= figure.bbox.width and box.y0 >= 0
    for axes in figure.axes:
        low, high = axes.get_xlim()
        shown = [text for text in axes.get_xticklabels() if low <= text.get_position()[0] <= high and axes.axison]
        assert overlapping({text.get_text(): text.get_window_extent() for text in shown}) == []


@pytest.mark.parametrize(
    ("count", "stem", "apart"),
    [
        (1, "residual_gelu_", 1),
        (3, "residual_gelu_", 1.001),
        (8, "model_", 1.15),
        (12, "residual_gelu_", 1.02),
        (12, "residual_gelu_", 1.4),
    ],
)
def test_labels_of_points_overlap_neither_each_other_nor_the_frame(
    monkeypatch: pytest.MonkeyPatch, count: int, stem: str, apart: float
) -> None:
    models = crowd(count, stem, apart)
    monkeypatch.setattr(style, "MODELS", tuple(model.name for model in models))
    figure = accuracy_against_parameters(models, SETTINGS)
    [axes] = figure.axes
    labels = {text: box for text, box in written(figure) if text.startswith(stem) and "\n9" in text}
    assert len(labels) == count
    assert overlapping(labels) == []
    for box in labels.values():
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
        assert axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1


def test_what_lies_below_the_seeds_is_written_side_by_side_or_in_rows() -> None:
    own = {name: [99.4, 11.35, 10.64] for name in MODELS}
    figure = over_seeds(own, own, SETTINGS)
    [axes] = figure.axes
    boxes = [box for text, box in written(figure) if "mean " in text]
    assert len(boxes) == 2 * len(own)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)


@each_figure
def test_a_model_that_a_user_adds_is_drawn_and_the_others_look_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Callable[[list[ModelResult]], Figure]
) -> None:
    looks = {name: style.model_style(name) for name in MODELS}
    new = f"model_{len(MODELS) + 1}"
    monkeypatch.setattr(style, "MODELS", (*MODELS, new))
    assert saved(draw([*several(), result(new)]), tmp_path / "figure.png")
    assert {name: style.model_style(name) for name in MODELS} == looks


def styles(axes: Axes) -> dict[object, tuple[object, object, object]]:
    """Colour, marker and dash of each line that stands for a model."""
    named = [line for line in axes.lines if line.get_label() in MODELS]
    return {line.get_label(): (line.get_color(), line.get_marker(), line.get_linestyle()) for line in named}


@pytest.mark.parametrize("name", ["accuracy", "loss"])
def test_a_model_looks_the_same_whichever_others_are_shown(name: str) -> None:
    together = [styles(axes) for axes in FIGURES[name](several()).axes]
    assert together[0] == together[1]
    assert list(together[0]) == list(MODELS)
    for model in several():
        assert [styles(axes) for axes in FIGURES[name]([model]).axes] == 2 * [{model.name: together[0][model.name]}]


@pytest.mark.parametrize("name", ["accuracy", "loss"])
def test_curves_show_the_histories(name: str) -> None:
    models = [result("model_1"), result("model_2", accuracies=(95, 96, 97), losses=(0.3, 0.2, 0.1))]
    figure = FIGURES[name](models)
    for axes, column in zip(figure.axes, (f"train_{name}", f"val_{name}"), strict=True):
        for model in models:
            (line,) = [line for line in axes.lines if line.get_label() == model.name]
            assert points(line) == model.history[["epoch", column]].to_numpy().tolist()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["model_1", "model_2"]


def test_curves_are_headed_by_the_model_that_ends_best() -> None:
    models = [
        result("model_1", accuracies=(97.0, 99.9, 98.0), losses=(0.2, 0.01, 0.1)),
        result("model_2", accuracies=(90.0, 98.0, 98.124), losses=(0.3, 0.2, 0.0432)),
        result("model_3", accuracies=(99.0, 98.5, 97.0), losses=(0.02, 0.05, 0.3)),
    ]
    for figure, value in ((accuracy_curves(models, PARAMS), "98.12 %"), (loss_curves(models), "0.043")):
        heading = figure.get_suptitle()
        assert heading.startswith("model_2 ") and heading.endswith(f" {value}")


@pytest.mark.parametrize("place", [0, 1])
def test_a_model_of_a_single_epoch_is_within_the_curves_bounds(tmp_path: Path, place: int) -> None:
    models = [result("model_1")]
    models.insert(place, result("model_2", accuracies=(42.0,), losses=(1.5,)))
    for figure, (bottom, top) in ((accuracy_curves(models, PARAMS), (42, 99.4)), (loss_curves(models), (0.05, 3))):
        low, high = figure.axes[0].get_ylim()
        assert low <= bottom and top <= high
        assert saved(figure, tmp_path / "curves.png")


def test_every_seed_is_shown_with_the_mean_the_target_and_the_reference_figures() -> None:
    own = {"model_1": [99.0, 99.2, 99.4], "model_5": [99.5, 99.4], "model_6": [99.55, 99.65]}
    figure = over_seeds(own, {"model_1": [99.45, 99.55]}, params_with(model_1=99.05, model_5=99.44))
    assert all(word in figure.get_suptitle() for word in ("model_6 ", "99.60 %", "2 seeds", "99.55 %"))
    [axes] = figure.axes
    heights = [[height for _, height in points(line)] for line in axes.lines if len(points(line))]
    assert [99.0, 99.2, 99.4] in heights and [99.45, 99.55] in heights and [99.55, 99.65] in heights
    assert [[height for _, height in drawn] for drawn in hollow_points(axes)] == [[99.45, 99.55]]
    # No seed hides another, and all stand at their model.
    for place, name in enumerate(own):
        across = [
            x for line in axes.lines for x, height in points(line) if height in own[name] and abs(x - place) < 0.5
        ]
        assert len(set(across)) >= len(own[name])
    crosses = [height for line in axes.lines if line.get_marker() == "x" for _, height in points(line)]
    assert crosses == [99.05, 99.44]
    assert [text.get_text() for text in axes.get_xticklabels()] == [f"{name}\n7,000" for name in own]
    means = [segment[0][1] for group in axes.collections for segment in group.get_segments()]  # type: ignore[attr-defined]
    assert means == pytest.approx([99.2, 99.5, 99.45, 99.6])


def test_a_reference_figure_below_all_seeds_is_written_at_the_bottom() -> None:
    [axes] = over_seeds({"model_4": [98.8, 98.9]}, {}, params_with(model_4=97.39)).axes
    assert "× 97.39" in texts_of(axes)
    assert axes.get_ylim()[0] > 98.6


def test_a_seed_that_diverged_is_written_at_the_bottom_and_the_target_is_always_in_the_picture() -> None:
    [axes] = over_seeds({"model_1": [10.64, 99.4, 99.5]}, {}).axes
    assert "▾ 10.64, mean 69.85" in texts_of(axes)
    assert axes.get_ylim()[0] == pytest.approx(99.4 - 0.12)
    [axes] = over_seeds({"model_1": [99.4, 11.35, 10.64]}, {}).axes
    assert "▾ 2 seeds, 10.64, mean 40.46" in texts_of(axes)
    [axes] = over_seeds({"model_6": [99.7, 99.8]}, {}).axes
    assert axes.get_ylim()[0] < 99.4


@pytest.mark.parametrize(
    ("reaching", "who"),
    [
        ([], "No model reaches"),
        (["model_2"], "model_2 reaches"),
        (["model_1", "model_2"], "model_1 and model_2 reach"),
        (["model_1", "model_2", "model_3"], "model_1, model_2 and model_3 reach"),
    ],
)
def test_the_heading_names_the_models_that_reach_both_targets(reaching: list[str], who: str) -> None:
    good, bad = [(4, 9, 60)], [(4, 9, 61)]
    models = [result(name, good if name in reaching else bad) for name in ("model_1", "model_2", "model_3")]
    large = result("model_4", good, parameters=8000)
    heading = accuracy_against_parameters([*models, large], PARAMS).get_suptitle()
    assert heading.startswith(f"{who} ") and "99.4 %" in heading and "8,000" in heading


def test_accuracy_stands_over_parameters_with_its_interval_and_the_reference_figure() -> None:
    model = result("model_3", [(4, 9, 100)], parameters=5000)
    for params, reference in ((PARAMS, []), (params_with(model_3=98.7, model_4=98.7), [[[5000, 98.7]]])):
        axes = accuracy_against_parameters([model], params).axes[0]
        (point, _, (bars,)) = axes.containers[0]
        assert points(point) == [[5000, 99.0]]
        np.testing.assert_allclose(bars.get_segments()[0], [(5000, model.interval[0]), (5000, model.interval[1])])
        for line in (point, bars):
            assert line.get_transform().contains_branch(axes.transData)
        assert hollow_points(axes) == reference
        colours = {line.get_markeredgecolor() for line in axes.lines if points(line) in reference}
        assert colours == ({style.model_style("model_3")[0]} if reference else set())
        low, high = axes.get_ylim()
        assert low < (98.7 if reference else model.interval[0]) and 99.4 < high
        assert "model_3\n99.00 %" in texts_of(axes)


@pytest.mark.parametrize("reference", [97.3, 90.0])
def test_a_reference_figure_far_below_is_written_at_the_edge(reference: float) -> None:
    model = result("model_3", [(4, 9, 100)])
    axes = accuracy_against_parameters([model], params_with(model_3=reference)).axes[0]
    assert f"○ {reference:.2f}" in texts_of(axes)
    assert axes.get_ylim()[0] == pytest.approx(model.interval[0] - 0.12)


def test_a_model_far_below_is_written_at_the_edge() -> None:
    models = [result("model_3", [(4, 9, 100)]), result("model_4", [(4, 9, 900)])]
    axes = accuracy_against_parameters(models, PARAMS).axes[0]
    assert "▾ model_4 91.00" in texts_of(axes)
    assert axes.get_ylim()[0] == pytest.approx(97.4)


@pytest.mark.parametrize(
    ("mistakes", "numbers"),
    [
        ([(4, 9, 30), (9, 4, 27)], ["57", "10,000", "4", "9", "30 times"]),
        ([(0, 6, 1)], ["1", "10,000", "0", "6", "once"]),
        ([], ["0", "10,000"]),
    ],
)
def test_the_confusion_matrix_is_headed_by_its_mistakes_and_holds_the_counts(
    tmp_path: Path, mistakes: list[Mistake], numbers: list[str]
) -> None:
    model = result(mistakes=mistakes)
    figure = confusion_matrix(model)
    assert re.findall(r"(?<!_)\b[\d,]*\d(?: times)?|once", figure.get_suptitle()) == numbers
    counts = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert counts == {
        (predicted, actual): f"{count:,}"
        for actual, row in enumerate(model.confusion)
        for predicted, count in enumerate(row)
        if count
    }
    assert saved(figure, tmp_path / "confusion.png")


@pytest.mark.parametrize(
    ("shown", "count", "heading"),
    [(4, 4, "4 of the 12 "), (11, 11, "11 of the 12 "), (12, 12, "All 12 "), (40, 12, "All 12 ")],
)
def test_the_most_probable_mistakes_are_shown_with_what_they_were_taken_for(
    shown: int, count: int, heading: str
) -> None:
    model = result(mistakes=[(4, 9, 3), (7, 2, 9)])
    figure = misclassified_digits(model, shown)
    assert figure.get_suptitle().startswith(heading) and "model_2" in figure.get_suptitle()
    drawn = [axes for axes in figure.axes if axes.images]
    expected = ["4 → 9  99 %", "4 → 9  98 %", "4 → 9  97 %"] + [f"7 → 2  {96 - k} %" for k in range(9)]
    assert [axes.get_title() for axes in drawn] == expected[:count]
    # Ink is dark on a light ground.
    assert np.array_equal(255 - np.asarray(drawn[1].images[0].get_array()), model.misclassified[1].pixels)


@pytest.mark.parametrize("each", [1, 500, 1000])
def test_a_model_without_mistakes_is_drawn(tmp_path: Path, each: int) -> None:
    models = [result("model_1", [], each=each), result("model_2", [(4, 9, 1)], each=each)]
    assert saved(accuracy_against_parameters(models, PARAMS), tmp_path / "parameters.png")
    assert saved(misclassified_digits(models[0], 4), tmp_path / "misclassified.png")


def test_a_model_that_knows_nothing_is_drawn(tmp_path: Path) -> None:
    model = result(mistakes=[(digit, (digit + 1) % 10, 100) for digit in range(10)], each=100)
    assert saved(accuracy_against_parameters([model], PARAMS), tmp_path / "parameters.png")


@pytest.mark.parametrize(
    ("bounds", "deskew", "changes"),
    [
        ((15.0, 2.0, 10.0), False, "rotated up to 15°, shifted up to 2 px, scaled up to 10 %"),
        ((0.0, 0.5, 0.0), True, "deskewed, shifted up to 0.5 px"),
        ((0.0, 0.0, 0.0), True, "deskewed"),
        ((0.0, 0.0, 0.0), False, "unchanged: "),
    ],
)
def test_augmented_digits_stand_below_their_originals_and_the_bounds_above(
    bounds: tuple[float, float, float], deskew: bool, changes: str
) -> None:
    augmentation = Augmentation(**dict(zip(Augmentation.model_fields, bounds, strict=True)))
    recipe = RECIPE.model_copy(update={"augmentation": augmentation, "deskew": deskew})
    rows = [DIGITS.flip(1).float() / 255, DIGITS.flip(2).float() / 255]
    figure = augmented_digits(DIGITS, rows, "model_2", recipe)
    first, second = figure.get_suptitle().split("\n")
    assert "model_2" in first
    assert second.startswith(changes) if changes.endswith(" ") else second == changes
    shown = np.stack([np.asarray(axes.images[0].get_array()) for axes in figure.axes])
    np.testing.assert_array_equal(shown, 1 - torch.cat([DIGITS.float() / 255, *rows]).numpy())


def test_the_longest_heading_of_augmented_digits_fits_above_eight_of_them() -> None:
    augmentation = Augmentation(rotation_deg=12.5, shift_px=2.5, scale_percent=12.5)
    recipe = RECIPE.model_copy(update={"augmentation": augmentation, "deskew": True})
    eight = noise(8).pixels
    figure = augmented_digits(eight, [eight.float() / 255], "model_6", recipe)
    heading = figure.get_suptitle()
    [box] = [box for text, box in written(figure) if text == heading]
    assert 0 < box.x0 and box.x1 < figure.bbox.width and box.y1 <= figure.bbox.height
