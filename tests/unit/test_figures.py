"""The figures: they hold the numbers they are given, look the same every time, and leave no trace."""

import re
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from mnist_cnn.engine.predictor import TTA_VIEWS
from mnist_cnn.models import MODELS
from mnist_cnn.report.figures import style
from mnist_cnn.report.figures.claims import leader, validation_interval
from mnist_cnn.report.figures.curves import accuracy_curves, loss_curves
from mnist_cnn.report.figures.digits import augmented_images, confusion_matrix, misclassified_images
from mnist_cnn.report.figures.labels import spread
from mnist_cnn.report.figures.parameters import accuracy_against_parameters
from mnist_cnn.report.figures.seeds import accuracy_over_seeds
from mnist_cnn.report.results import ModelResult
from mnist_cnn.settings.params import Augmentation, Recipe, Targets
from mnist_cnn.settings.story import StoryEntry
from tests.helpers import AUGMENTATION, MNIST, NO_AUGMENTATION, RECIPE, noise
from tests.results import Mistake, model_result

TARGETS = Targets(test_accuracy=99.4, max_epochs=15, parameters_below=8000)
DIGITS = noise(3).pixels
AUGMENTING = RECIPE.model_copy(update={"augmentation": AUGMENTATION, "deskew": True, "tta": True})


def story(**references: float) -> dict[str, StoryEntry]:
    """A story with reference test accuracies by model, and nothing else."""
    return {
        name: StoryEntry(
            target="", reference_parameters=None, reference_train_accuracy=None, reference_test_accuracy=accuracy
        )
        for name, accuracy in references.items()
    }


STORY = story(model_1=99.05, model_4=97.39)


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


def augmented(name: str, recipe: Recipe = AUGMENTING, digits: torch.Tensor = DIGITS) -> Figure:
    """Each row has other pixels: those of the digits, less so much ink."""
    epochs = [digits * (0.9 - 0.1 * epoch) / 255 for epoch in range(2)]
    views = [digits * (0.7 - 0.1 * view) / 255 for view in range(len(TTA_VIEWS))]
    return augmented_images(name, MNIST, recipe, digits, digits.flip(1), epochs, views)


def over_seeds(
    own: dict[str, list[float]], shared: dict[str, list[float]] | None = None, size: int = 7000, **references: float
) -> Figure:
    return accuracy_over_seeds(
        own, shared or {}, dict.fromkeys(own, size), TARGETS, story(**references), "model_6", MNIST
    )


FIGURES: dict[str, Callable[[list[ModelResult]], Figure]] = {
    "accuracy": lambda models: accuracy_curves(models, MNIST),
    "loss": lambda models: loss_curves(models, MNIST),
    "parameters": lambda models: accuracy_against_parameters(models, TARGETS, STORY, MNIST),
    "confusion": lambda models: confusion_matrix(models[0], MNIST),
    "misclassified": lambda models: misclassified_images(models[0], 4, MNIST),
    "augmented": lambda models: augmented(models[0].name),
    "seeds": lambda models: over_seeds({model.name: [99.0, 99.5] for model in models}, model_4=97.39),
}
each_figure = pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)


def saved(figure: Figure, folder: Path) -> tuple[bytes, bytes]:
    paths = folder / "figure.png", folder / "figure.svg"
    style.save(figure, *paths)
    return paths[0].read_bytes(), paths[1].read_bytes()


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def heading(figure: Figure) -> str:
    """What is in bold, in one line."""
    return " ".join(figure.get_suptitle().split())


def points(line: Line2D) -> list[list[float]]:
    drawn: list[list[float]] = np.asarray(line.get_xydata()).tolist()
    return drawn


def lines_at(axes: Axes, marker: str) -> list[list[float]]:
    return [place for line in axes.lines if line.get_marker() == marker for place in points(line)]


@each_figure
def test_a_figure_is_saved_whole_with_equal_bytes_for_equal_numbers_whatever_matplotlibs_settings(
    tmp_path: Path, draw: Callable[[list[ModelResult]], Figure]
) -> None:
    folder = tmp_path / "pictures"
    png, svg = saved(draw(several()), folder)
    assert png.startswith(b"\x89PNG\r\n") and png.endswith(b"IEND\xaeB`\x82")
    picture = imread(folder / "figure.png")
    # A page shows it 800 px wide, some screens with two pixels for each of these.
    assert picture.shape[1] == 1600
    assert np.ptp(picture[..., :3]) == 1  # white, and something black on it
    assert (picture[..., 3] == 1).all()
    assert svg.startswith(b"<?xml") and svg.endswith(b"</svg>\n") and len(svg) < 300_000
    # No time, no version, and no letters that would look otherwise where their font is missing.
    assert not re.search(rb"<dc:date>|Matplotlib v|<text", svg)
    # As a user's own file of settings may: styles that change nearly all of them.
    other = {"font.family": "serif", "savefig.bbox": "tight", "svg.hashsalt": "another", "svg.fonttype": "none"}
    with matplotlib.style.context(["classic", "dark_background", other]):
        before = dict(matplotlib.rcParams)
        assert saved(draw(several()), folder) == (png, svg)
        assert dict(matplotlib.rcParams) == before
    assert sorted(file.name for file in folder.iterdir()) == ["figure.png", "figure.svg"]


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
    """Models of much the same accuracy, each so much larger than the one before; a look at half of them was made."""
    return [
        result(
            f"{stem}{place + 1}",
            [(4, 9, 44 + 7 * (place % 4))],
            test_errors=44 + 7 * (place % 4) if place % 2 else None,
            parameters=round(7000 * apart**place),
            accuracies=(97.0, 98.5, 99.2 + place / 100),
        )
        for place in range(count)
    ]


def written(figure: Figure) -> list[tuple[str, Bbox]]:
    """The texts that are drawn when a figure is saved, with their boxes."""
    figure.set_dpi(200)
    figure.draw_without_rendering()
    drawn: list[Text] = []
    draw = Text.draw

    def note(text: Text, renderer: RendererBase) -> None:
        drawn.append(text)
        draw(text, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", note)
        FigureCanvasAgg(figure).draw()
    return [
        (text.get_text(), text.get_window_extent()) for text in drawn if text.get_visible() and text.get_text().strip()
    ]


def overlapping(boxes: list[tuple[str, Bbox]]) -> list[tuple[str, str]]:
    return [(one, other) for (one, box), (other, beside) in combinations(boxes, 2) if box.overlaps(beside)]


crowds = pytest.mark.parametrize(
    ("count", "stem", "apart"),
    [(1, "residual_gelu_", 1), (8, "model_", 1.02), (12, "residual_gelu_", 1.4)],
)


@crowds
@each_figure
def test_any_number_of_models_fits_into_the_picture_and_no_text_lies_on_another(
    monkeypatch: pytest.MonkeyPatch, draw: Callable[[list[ModelResult]], Figure], count: int, stem: str, apart: float
) -> None:
    models = crowd(count, stem, apart)
    monkeypatch.setattr(style, "MODELS", tuple(model.name for model in models))
    figure = draw(models)
    boxes = written(figure)
    for text, box in boxes:
        assert 0 <= box.x0 and box.x1 <= figure.bbox.width and 0 <= box.y0 and box.y1 <= figure.bbox.height, text
    # The heading leaves empty lines for the note below it.
    assert overlapping([(text, box) for text, box in boxes if text != figure.get_suptitle()]) == []
    assert all(float(text.get_fontsize()) >= style.NOTE for text in figure.findobj(Text) if isinstance(text, Text))


@pytest.mark.parametrize(("count", "stem", "apart"), [(3, "residual_gelu_", 1.001), (12, "residual_gelu_", 1.02)])
def test_labels_of_points_overlap_neither_each_other_nor_the_frame(
    monkeypatch: pytest.MonkeyPatch, count: int, stem: str, apart: float
) -> None:
    models = crowd(count, stem, apart)
    monkeypatch.setattr(style, "MODELS", tuple(model.name for model in models))
    figure = accuracy_against_parameters(models, TARGETS, {}, MNIST)
    [axes] = figure.axes
    labels = [(text, box) for text, box in written(figure) if text.startswith(stem) and "\n9" in text]
    assert len(labels) == count
    assert overlapping(labels) == []
    for _, box in labels:
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
        assert axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1


@given(
    wanted=st.lists(st.floats(-50, 150), min_size=1, max_size=12),
    gap=st.floats(0, 8),
)
def test_what_is_spread_is_apart_in_order_within_bounds_and_stays_where_it_can(wanted: list[float], gap: float) -> None:
    heights = spread(wanted, gap, 0, 100)
    placed = sorted(heights)
    assert all(upper - lower >= gap - 1e-9 for lower, upper in pairwise(placed))
    assert -1e-9 <= placed[0] and placed[-1] <= 100 + 1e-9
    for one, other in combinations(range(len(wanted)), 2):
        assert (wanted[one] - wanted[other]) * (heights[one] - heights[other]) >= 0
    inside = all(0 <= height <= 100 for height in wanted)
    if inside and all(upper - lower >= gap for lower, upper in pairwise(sorted(wanted))):
        assert heights == pytest.approx(wanted)


@each_figure
def test_a_model_that_a_user_adds_is_drawn_and_the_others_look_as_before(
    monkeypatch: pytest.MonkeyPatch, draw: Callable[[list[ModelResult]], Figure]
) -> None:
    looks = {name: style.model_style(name) for name in MODELS}
    new = f"model_{len(MODELS) + 1}"
    monkeypatch.setattr(style, "MODELS", (*MODELS, new))
    assert draw([*several(), result(new)])
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
    for model in several()[::4]:
        assert [styles(axes) for axes in FIGURES[name]([model]).axes] == 2 * [{model.name: together[0][model.name]}]


@pytest.mark.parametrize("name", ["accuracy", "loss"])
def test_curves_show_the_whole_histories_and_are_labelled_with_their_ends(name: str) -> None:
    models = [result("model_1"), result("model_2", accuracies=(11, 96, 100), losses=(2.3, 0.2, 0.0001))]
    figure = FIGURES[name](models)
    for axes, column in zip(figure.axes, (f"train_{name}", f"val_{name}"), strict=True):
        low, high = axes.get_ylim()
        labels = [text.get_text() for text in axes.texts if text.get_text()]
        for model, label in zip(models, labels, strict=True):
            (line,) = [line for line in axes.lines if line.get_label() == model.name]
            assert points(line) == model.history[["epoch", column]].to_numpy().tolist()
            # The logarithm of no error is infinite: the last hundredth of a percent is one.
            assert low <= min(model.history[column]) and min(99.99, *model.history[column]) <= high
            assert label.startswith(f"{model.name} ")
            assert float(label.split()[1]) == pytest.approx(model.history[column].iloc[-1], abs=0.005)
        assert 4 <= len([tick for tick in axes.get_yticks() if low <= tick <= high]) <= 16


@pytest.mark.parametrize("name", ["accuracy", "loss"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_model_of_a_single_epoch_is_drawn(tmp_path: Path, name: str, place: int) -> None:
    models = [result("model_1")]
    models.insert(place, result("model_2", accuracies=(42.0,), losses=(1.5,)))
    for shown in (models, [models[place]]):
        figure = FIGURES[name](shown)
        assert saved(figure, tmp_path)
        assert all(axes.get_xlim()[0] <= 1 and axes.get_xticks()[0] == 1 for axes in figure.axes)


def test_a_claim_is_made_only_where_no_interval_overlaps() -> None:
    best, close = result("model_1", [(4, 9, 50)]), result("model_2", [(4, 9, 51)])
    bad = result("model_3", [(4, 9, 200)])
    assert leader({"a": (98, 99), "b": (99.1, 99.3), "c": (97, 99)}) == "b"
    assert leader({"a": (98, 99), "b": (98.9, 99.3)}) is None and leader({"a": (98, 99)}) is None
    assert validation_interval(best)[0] < 99.5 < validation_interval(best)[1]
    assert heading(accuracy_curves([best, bad], MNIST)).startswith("model_1 ")
    assert not any(name in heading(accuracy_curves([best, close, bad], MNIST)) for name in MODELS)
    assert not any(name in heading(loss_curves([best, bad], MNIST)) for name in MODELS)


def test_every_seed_is_shown_with_the_mean_the_target_and_the_reference_figures() -> None:
    own = {"model_1": [99.0, 99.2, 99.4], "model_5": [99.5, 99.4], "model_6": [99.65, 99.55, 99.55, 99.55]}
    figure = over_seeds(own, {"model_1": [99.45, 99.55]}, model_1=99.05, model_5=99.44)
    [axes] = figure.axes
    assert "model_6 has fewer than 8,000 parameters" in heading(figure) and "model_5" not in heading(figure)
    drawn = [sorted(place[0] for place in points(line)) for line in axes.lines]
    for values in (*own.values(), [99.45, 99.55]):
        assert sorted(values) in drawn
        assert any(x == pytest.approx(np.mean(values)) for x, _ in lines_at(axes, "|"))
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white" and points(line)]
    assert [[x for x, _ in points(line)] for line in hollow] == [[99.45, 99.55]]
    # No seed hides another.
    figure.draw_without_rendering()
    for line in axes.lines:
        if len(points(line)) > 1 and line.get_linestyle() == "None":
            places = axes.transData.transform(points(line)) * 72 / figure.dpi
            assert all(np.abs(one - other).max() > 3.4 for one, other in combinations(places, 2))
    assert [x for x, _ in lines_at(axes, "x")] == [99.05, 99.44]
    assert {"99.20", "99.50", "99.45", "99.58"} <= set(texts_of(figure))
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"{name}\n7,000 parameters" for name in own]


def test_a_recipe_is_said_to_average_over_the_target_only_with_its_whole_interval_and_few_parameters() -> None:
    assert "model" not in heading(over_seeds({"model_6": [99.41, 99.9]}))
    assert "model" not in heading(over_seeds({"model_6": [99.5]}))
    assert "model" not in heading(over_seeds({"model_6": [99.5, 99.51]}, size=8000))
    assert "model_5 and model_6" in heading(over_seeds({"model_5": [99.5, 99.51], "model_6": [99.5, 99.51]}))


def test_what_lies_far_below_is_written_at_the_edge_and_the_target_is_always_in_the_picture() -> None:
    figure = over_seeds({"model_1": [10.64, 99.4, 99.5], "model_4": [11.35, 99.4, 10.6]}, model_4=97.3)
    left = figure.axes[0].get_xlim()[0]
    assert left > 99
    for words in ("10.64", "2 seeds, 10.60", "97.30"):
        assert any(text.endswith(words) and text.startswith("◂") for text in texts_of(figure))
    left, right = over_seeds({"model_6": [99.7, 99.8]}).axes[0].get_xlim()
    assert left < 99.4 < right


@pytest.mark.parametrize(
    ("reaching", "who"),
    [
        ([], "Test accuracy"),
        (["model_2"], "model_2 has"),
        (["model_1", "model_2"], "model_1 and model_2 have"),
        (["model_1", "model_2", "model_3"], "model_1, model_2 and model_3 have"),
    ],
)
def test_the_heading_names_the_models_whose_whole_intervals_reach_both_targets(reaching: list[str], who: str) -> None:
    # With 46 errors in 10,000 images the interval begins just above 99.4 %.
    models = [result(name, test_errors=40 if name in reaching else 50) for name in ("model_1", "model_2", "model_3")]
    large = result("model_4", test_errors=40, parameters=8000)
    title = heading(accuracy_against_parameters([*models, large], TARGETS, {}, MNIST))
    assert title.startswith(f"{who} ")
    assert ("99.4 %" in title and "8,000" in title) == bool(reaching)


@pytest.mark.parametrize("test_errors", [100, None])
def test_accuracy_stands_over_parameters_with_its_interval_and_the_reference_figure(test_errors: int | None) -> None:
    model = result("model_3", [(4, 9, 100)], test_errors=test_errors, parameters=5000)
    interval = model.test.interval if model.test else validation_interval(model)
    for told, reference in (({}, []), (story(model_3=98.7, model_4=98.7), [[5000, 98.7]])):
        figure = accuracy_against_parameters([model], TARGETS, told, MNIST)
        axes = figure.axes[0]
        (point, _, (bars,)) = axes.containers[0]
        assert points(point) == [[5000, 99.0]]
        np.testing.assert_allclose(bars.get_segments()[0], [(5000, interval[0]), (5000, interval[1])])
        assert (point.get_markerfacecolor() == "white") == (test_errors is None)
        assert lines_at(axes, "x") == reference
        # The target is of the test set, and shown where that was looked at.
        assert ("target\n99.4 %" in texts_of(figure)) == (test_errors is not None)
        assert axes.get_ylabel().startswith("Validation" if test_errors is None else "Test")
        low, high = axes.get_ylim()
        assert low < (98.7 if reference else interval[0]) and interval[1] < high
        assert "model_3\n99.00 %" in texts_of(figure)


def test_models_that_would_hide_one_another_stand_side_by_side_on_their_side_of_the_limit() -> None:
    sizes = {"model_1": 7980, "model_2": 7990, "model_3": 7999, "model_4": 8000, "model_5": 20000}
    models = [result(name, parameters=size) for name, size in sizes.items()]
    figure = accuracy_against_parameters(models, TARGETS, {}, MNIST)
    [axes] = figure.axes
    drawn = [points(container[0])[0][0] for container in axes.containers if points(container[0])]
    assert drawn[2] < 8000 <= drawn[3] and drawn[4] == 20000
    figure.draw_without_rendering()
    pixels = [axes.transData.transform((x, 99))[0] for x in drawn]
    assert all(right - left > 5 for left, right in pairwise(pixels[:3]))


@pytest.mark.parametrize("reference", [96.3, 90.0])
def test_what_is_far_below_is_written_at_the_edge(reference: float) -> None:
    models = [result("model_3", test_errors=100), result("model_4", test_errors=900)]
    figure = accuracy_against_parameters(models, TARGETS, story(model_3=reference), MNIST)
    assert any(f"{reference:.2f}" in text and "×" in text for text in texts_of(figure))
    assert any("model_4 91.00" in text for text in texts_of(figure))
    assert 96.5 < figure.axes[0].get_ylim()[0] < 98.7


@pytest.mark.parametrize(
    ("mistakes", "numbers"),
    [
        ([(4, 9, 30), (9, 4, 27)], ["57", "10,000", "4", "9", "30 times"]),
        ([(0, 6, 1)], ["1", "10,000", "0", "6", "once"]),
        ([(0, 6, 2), (6, 0, 2)], ["4", "10,000"]),
        ([], ["0", "10,000"]),
    ],
)
def test_the_confusion_matrix_is_headed_by_its_mistakes_and_holds_shares_and_counts(
    mistakes: list[Mistake], numbers: list[str]
) -> None:
    model = result(mistakes=mistakes)
    figure = confusion_matrix(model, MNIST)
    assert "validation" in heading(figure)
    assert re.findall(r"(?<!_)\b[\d,]*\d(?: times)?|once", heading(figure)) == numbers
    [axes] = figure.axes
    cells: dict[tuple[int, int], set[str]] = {}
    for text in axes.texts:
        x, y = text.get_position()
        if round(x) < 10 and y > -0.5:
            cells.setdefault((round(y), round(x)), set()).add(text.get_text())
    assert cells == {
        (actual, predicted): {f"{100 * count / sum(row):.1f} %", f"{count:,}"}
        for actual, row in enumerate(model.confusion)
        for predicted, count in enumerate(row)
        if count
    }
    # What is wrong stands out; what is right, and what there is none of, does not.
    coloured = {place for place, patch in enumerate(axes.patches) if np.ptp(patch.get_facecolor()[:3]) > 0.1}
    assert coloured == {10 * actual + predicted for actual, predicted, _ in mistakes}


@pytest.mark.parametrize(
    ("shown", "count", "title"),
    [(4, 4, "4 of the 12 "), (11, 11, "11 of the 12 "), (12, 12, "All 12 "), (40, 12, "All 12 ")],
)
def test_the_most_probable_mistakes_are_shown_with_their_likeliest_classes(shown: int, count: int, title: str) -> None:
    model = result(mistakes=[(4, 9, 3), (7, 2, 9)])
    figure = misclassified_images(model, shown, MNIST)
    assert heading(figure).startswith(title) and "model_2" in heading(figure) and "validation" in heading(figure)
    [axes] = figure.axes
    # Ink is dark on a light ground.
    assert len(axes.images) == count
    for picture, image in zip(axes.images, model.misclassified, strict=False):
        np.testing.assert_allclose(255 * (1 - np.asarray(picture.get_array())), image.pixels, atol=1e-9)
    words = texts_of(figure)
    assert [word for word in words if "true" in word] == (3 * ["true: 4"] + 9 * ["true: 7"])[:count]
    # As the first is, and its three likeliest classes with their probabilities, a little less than a half rounded.
    assert words[:7] == ["true: 4", "9", "99", "4", "1", "0", "<1"]


@pytest.mark.parametrize("each", [1, 1000])
def test_a_model_without_mistakes_is_drawn(tmp_path: Path, each: int) -> None:
    models = [result("model_1", [], test_errors=0, each=each), result("model_2", [(4, 9, 1)], each=each)]
    assert saved(accuracy_against_parameters(models, TARGETS, {}, MNIST), tmp_path)
    assert saved(accuracy_curves(models, MNIST), tmp_path)
    figure = misclassified_images(models[0], 4, MNIST)
    assert saved(figure, tmp_path)
    [(text, box)] = written(figure)
    assert "none" in text and box.y1 < figure.bbox.height


def test_a_target_far_below_all_models_and_names_that_look_like_formulas_are_drawn(tmp_path: Path) -> None:
    low = TARGETS.model_copy(update={"test_accuracy": 50.0})
    figure = accuracy_against_parameters([result("model_1"), result("model_2")], low, {}, MNIST)
    assert saved(figure, tmp_path) and not any(text.startswith("target") for text, _ in written(figure))
    odd = MNIST._replace(title="a_$b$", classes=("$\\frac$", "$5", "$6"))
    model = result(mistakes=[(0, 1, 3)])
    for drawn in (confusion_matrix(model, odd), misclassified_images(model, 4, odd)):
        assert saved(drawn, tmp_path)
        assert any(
            "$\\frac$" in word for word in [*texts_of(drawn), *(t.get_text() for t in drawn.axes[0].get_xticklabels())]
        )


def test_a_model_that_knows_nothing_is_drawn(tmp_path: Path) -> None:
    mistakes = [(digit, (digit + 1) % 10, 100) for digit in range(10)]
    model = result(mistakes=mistakes, test_errors=10_000, each=100, accuracies=(0.0,), losses=(2.3,))
    for draw in (FIGURES["parameters"], FIGURES["confusion"], FIGURES["accuracy"]):
        assert saved(draw([model]), tmp_path)


@pytest.mark.parametrize(
    ("recipe", "titles", "rows"),
    [
        ({}, [], ["as they are"]),
        ({"deskew": True}, [], ["as they are", "deskewed"]),
        (
            {"augmentation": Augmentation(rotation_deg=0, shift_px=0.5, scale_percent=0)},
            ["shifted up to 0.5 px"],
            ["as they are", "epoch 1", "epoch 2"],
        ),
        (
            {"deskew": True, "tta": True, "augmentation": AUGMENTATION},
            ["rotated up to 10°, shifted up to 2 px, scaled up to 10 %", "test-time"],
            ["as they are", "deskewed", "epoch 1", "epoch 2", *(5 * [""])],
        ),
    ],
)
def test_each_row_of_augmented_images_says_what_it_is(
    recipe: dict[str, Any], titles: list[str], rows: list[str]
) -> None:
    figure = augmented("model_2", RECIPE.model_copy(update={"augmentation": NO_AUGMENTATION} | recipe))
    assert "model_2" in heading(figure)
    [axes] = figure.axes
    bold = [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"]
    assert len(bold) == len(titles) and all(title in text for title, text in zip(titles, bold, strict=True))
    named = [text.get_text() for text in axes.texts if text.get_fontweight() != "bold"]
    assert len(set(named)) == len(named) == len(rows)
    assert all(name in (row, name) if not row else name == row for name, row in zip(named, rows, strict=True))
    # Each in a frame, dark on light; the rows from above downwards.
    assert len(axes.images) == len(axes.patches) == len(rows) * len(DIGITS)
    ink = [255 * (1 - np.asarray(picture.get_array(), dtype=float)) for picture in axes.images]
    np.testing.assert_allclose(ink[0], DIGITS[0], atol=1e-4)
    if "deskewed" in rows:
        np.testing.assert_allclose(ink[len(DIGITS)], DIGITS.flip(1)[0], atol=1e-4)


@pytest.mark.parametrize("count", [1, 8, 40])
def test_any_number_of_augmented_images_fits_and_so_do_the_longest_words(count: int) -> None:
    bounds = Augmentation(rotation_deg=12.5, shift_px=12.5, scale_percent=12.5)
    figure = augmented("model_6", AUGMENTING.model_copy(update={"augmentation": bounds}), noise(count).pixels)
    for text, box in written(figure):
        assert 0 < box.x0 and box.x1 < figure.bbox.width and box.y1 <= figure.bbox.height, text
