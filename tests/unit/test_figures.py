"""The figures: they hold the numbers they are given, look the same every time, and leave no trace."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
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

from mnist_cnn import plotting
from mnist_cnn.models import MODELS
from mnist_cnn.settings.params import Augmentation, Step, Targets, load
from mnist_cnn.report import Measured

SETTINGS = load(Path(__file__).parents[2] / "params.yaml")
NO_STORY = SETTINGS.report.model_copy(update={"story": {}})
PARAMS = SETTINGS.model_copy(
    update={"targets": Targets(test_accuracy=99.4, max_epochs=15, parameters_below=8000), "report": NO_STORY}
)
DIGITS = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
# True digit, the digit it is taken for, how often.
Mistake = tuple[int, int, int]


def measured(
    name: str = "model_2",
    mistakes: list[Mistake] | None = None,
    each: int = 1000,
    parameters: int = 7000,
    val_accuracy: tuple[float, ...] = (97.0, 98.5, 99.2),
    val_loss: tuple[float, ...] = (0.2, 0.1, 0.05),
) -> Measured:
    """A model that knows ``each`` images of every digit, but for its mistakes; the surest of them first."""
    mistakes = [(4, 9, 3), (7, 2, 2)] if mistakes is None else mistakes
    confusion = (each * torch.eye(10, dtype=torch.int64)).tolist()
    misread: list[dict[str, Any]] = []
    for label, predicted, count in mistakes:
        confusion[label][label] -= count
        confusion[label][predicted] += count
        for _ in range(count):
            probability = 0.99 - len(misread) / 100
            pixels = DIGITS[len(misread) % len(DIGITS)].tolist()
            misread.append({"label": label, "predicted": predicted, "probability": probability, "pixels": pixels})
    accuracy = round(100 * (1 - len(misread) / (10 * each)), 4)
    history = {
        "epoch": range(1, 1 + len(val_accuracy)),
        "train_loss": [2 * loss for loss in val_loss],
        "train_accuracy": [value - 1 for value in val_accuracy],
        "val_loss": val_loss,
        "val_accuracy": val_accuracy,
    }
    metrics = {
        "parameters": parameters,
        "test_accuracy": accuracy,
        "meets_accuracy_target": accuracy >= 99.4,
        "meets_parameters_target": parameters < 8000,
    }
    return Measured(name, metrics, 20, confusion, misread, pd.DataFrame(history))


def augmented(models: list[Measured]) -> Figure:
    rows = [DIGITS.float() / 255, DIGITS.flip(2).float() / 255]
    return plotting.augmented_digits(DIGITS, rows, models[0].name, SETTINGS.models[SETTINGS.model])


def over_seeds(own: dict[str, list[float]], equal: dict[str, list[float]]) -> Figure:
    return plotting.accuracy_over_seeds(own, equal, dict.fromkeys(own, 7000), SETTINGS, "model_6")


FIGURES: dict[str, Callable[[list[Measured]], Figure]] = {
    "accuracy": lambda models: plotting.accuracy_curves(models, SETTINGS),
    "loss": plotting.loss_curves,
    "parameters": lambda models: plotting.accuracy_against_parameters(models, SETTINGS),
    "confusion": lambda models: plotting.confusion_matrix(models[0]),
    "misread": lambda models: plotting.misread_digits(models[0], 4),
    "augmented": augmented,
    "seeds": lambda models: over_seeds({model.name: [99.0, 99.5] for model in models}, {}),
}
each_figure = pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)


def several() -> list[Measured]:
    return [measured(name, parameters=4000 * place) for place, name in enumerate(MODELS, 1)]


def saved(figure: Figure, path: Path) -> bytes:
    plotting.save(figure, path)
    return path.read_bytes()


@each_figure
@pytest.mark.parametrize("models", [[measured()], several()], ids=["one model", "several models"])
def test_a_figure_is_saved_as_a_whole_picture_with_equal_bytes_for_equal_numbers(
    tmp_path: Path, draw: Callable[[list[Measured]], Figure], models: list[Measured]
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
    tmp_path: Path, draw: Callable[[list[Measured]], Figure]
) -> None:
    plain = saved(draw(several()), tmp_path / "plain.png")
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False, "savefig.dpi": 30, "figure.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert saved(draw(several()), tmp_path / "other.png") == plain
        assert dict(matplotlib.rcParams) == before


def test_two_dozen_models_look_different_and_the_first_have_colours_and_markers_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = tuple(f"network_{letter}" for letter in "abcdefghijklmnopqrstuvwx")
    monkeypatch.setattr(plotting, "MODELS", names)
    looks = [plotting.model_style(name) for name in names]
    assert len(set(looks)) == len({look[:2] for look in looks}) == 24
    first = len(plotting.COLOURS)
    assert [look[:2] for look in looks[:first]] == list(zip(plotting.COLOURS, plotting.MARKERS, strict=True))
    # Those of one colour have different dashes too, by which their curves are told apart.
    for colour in plotting.COLOURS:
        assert len({dash for own, _, dash in looks if own == colour}) == 3


def crowd(count: int, stem: str, apart: float) -> list[Measured]:
    """Models of much the same accuracy, each so much larger than the one before."""
    return [
        measured(
            f"{stem}{place + 1}",
            [(4, 9, 44 + 7 * (place % 4))],
            parameters=round(7000 * apart**place),
            val_accuracy=(97.0, 98.5, 99.2 + place / 100),
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
    [(1, "residual_gelu_", 1), (3, "model_", 1.02), (8, "model_", 1.15), (12, "residual_gelu_", 1.4)],
)
@each_figure
def test_any_number_of_models_fits_into_the_picture(
    monkeypatch: pytest.MonkeyPatch, draw: Callable[[list[Measured]], Figure], count: int, stem: str, apart: float
) -> None:
    models = crowd(count, stem, apart)
    monkeypatch.setattr(plotting, "MODELS", tuple(model.name for model in models))
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
        (3, "residual_gelu_", 1.02),
        (8, "model_", 1.15),
        (12, "model_", 1.02),
        (12, "residual_gelu_", 1.02),
        (12, "residual_gelu_", 1.4),
    ],
)
def test_labels_of_points_overlap_neither_each_other_nor_the_frame(
    monkeypatch: pytest.MonkeyPatch, count: int, stem: str, apart: float
) -> None:
    models = crowd(count, stem, apart)
    monkeypatch.setattr(plotting, "MODELS", tuple(model.name for model in models))
    figure = plotting.accuracy_against_parameters(models, SETTINGS)
    [axes] = figure.axes
    labels = {text: box for text, box in written(figure) if text.startswith(stem) and "\n9" in text}
    assert len(labels) == count
    assert overlapping(labels) == []
    for box in labels.values():
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
        assert axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1


def test_what_lies_below_the_seeds_is_written_run_parallel_or_in_rows() -> None:
    own = {name: [99.4, 11.35, 10.64] for name in MODELS}
    figure = over_seeds(own, own)
    [axes] = figure.axes
    boxes = [box for text, box in written(figure) if "mean " in text]
    assert len(boxes) == 2 * len(own)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)


@each_figure
def test_a_model_that_a_user_adds_is_drawn_and_the_others_look_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Callable[[list[Measured]], Figure]
) -> None:
    looks = {name: plotting.model_style(name) for name in MODELS}
    new = f"model_{len(MODELS) + 1}"
    monkeypatch.setattr(plotting, "MODELS", (*MODELS, new))
    assert saved(draw([*several(), measured(new)]), tmp_path / "figure.png")
    assert {name: plotting.model_style(name) for name in MODELS} == looks


def points(line: Line2D) -> list[list[float]]:
    drawn: list[list[float]] = np.asarray(line.get_xydata()).tolist()
    return drawn


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


@pytest.mark.parametrize("part", ["accuracy", "loss"])
def test_curves_show_the_histories(part: str) -> None:
    models = [measured("model_1"), measured("model_2", val_accuracy=(95, 96, 97), val_loss=(0.3, 0.2, 0.1))]
    figure = FIGURES[part](models)
    for axes, column in zip(figure.axes, (f"train_{part}", f"val_{part}"), strict=True):
        for model in models:
            (line,) = [line for line in axes.lines if line.get_label() == model.name]
            assert points(line) == model.history[["epoch", column]].to_numpy().tolist()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["model_1", "model_2"]


def test_curves_are_headed_by_the_model_that_ends_best() -> None:
    models = [
        measured("model_1", val_accuracy=(97.0, 99.9, 98.0), val_loss=(0.2, 0.01, 0.1)),
        measured("model_2", val_accuracy=(90.0, 98.0, 98.124), val_loss=(0.3, 0.2, 0.0432)),
        measured("model_3", val_accuracy=(99.0, 98.5, 97.0), val_loss=(0.02, 0.05, 0.3)),
    ]
    accuracy, loss = plotting.accuracy_curves(models, PARAMS), plotting.loss_curves(models)
    assert accuracy.get_suptitle() == "model_2 ends highest on validation, at 98.12 %"
    assert loss.get_suptitle() == "model_2 ends lowest on validation, at a loss of 0.043"


@pytest.mark.parametrize("place", [0, 1])
def test_a_model_of_a_single_epoch_is_within_the_curves_bounds(tmp_path: Path, place: int) -> None:
    models = [measured("model_1")]
    models.insert(place, measured("model_2", val_accuracy=(42.0,), val_loss=(1.5,)))
    for figure, (bottom, top) in (
        (plotting.accuracy_curves(models, PARAMS), (42, 99.4)),
        (plotting.loss_curves(models), (0.05, 3)),
    ):
        low, high = figure.axes[0].get_ylim()
        assert low <= bottom and top <= high
        assert saved(figure, tmp_path / "curves.png")


def test_every_seed_is_shown_with_the_mean_the_target_and_the_briefs_figures() -> None:
    own = {"model_1": [99.0, 99.2, 99.4], "model_5": [99.5, 99.4], "model_6": [99.55, 99.65]}
    figure = over_seeds(own, {"model_1": [99.45, 99.55]})
    assert figure.get_suptitle() == "model_6 averages 99.60 % over 2 seeds, the lowest 99.55 %"
    [axes] = figure.axes
    heights = [[height for _, height in points(line)] for line in axes.lines if len(points(line))]
    assert [99.0, 99.2, 99.4] in heights and [99.45, 99.55] in heights and [99.55, 99.65] in heights
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white" and len(points(line))]
    assert [[height for _, height in points(line)] for line in hollow] == [[99.45, 99.55]]
    # No seed hides another, and all stand at their model.
    for place, name in enumerate(own):
        across = [
            x for line in axes.lines for x, height in points(line) if height in own[name] and abs(x - place) < 0.5
        ]
        assert len(set(across)) >= len(own[name])
    assert [99.05] in heights and [99.44] in heights  # the brief's of models 1 and 5; it has none of model_6
    assert [text.get_text() for text in axes.get_xticklabels()] == [f"{name}\n7,000" for name in own]
    means = [segment[0][1] for group in axes.collections for segment in group.get_segments()]  # type: ignore[attr-defined]
    assert means == pytest.approx([99.2, 99.5, 99.45, 99.6])


def test_a_figure_of_the_brief_that_lies_below_all_seeds_is_written_at_the_bottom() -> None:
    [axes] = over_seeds({"model_4": [98.8, 98.9]}, {}).axes
    assert "× 97.39" in [text.get_text() for text in axes.texts]
    assert axes.get_ylim()[0] > 98.6


def test_a_seed_that_went_astray_is_written_at_the_bottom_and_the_target_is_always_in_the_picture() -> None:
    [axes] = over_seeds({"model_1": [10.64, 99.4, 99.5]}, {}).axes
    assert "▾ 10.64, mean 69.85" in [text.get_text() for text in axes.texts]
    assert axes.get_ylim()[0] == pytest.approx(99.4 - 0.12)
    [axes] = over_seeds({"model_1": [99.4, 11.35, 10.64]}, {}).axes
    assert "▾ 2 seeds, 10.64, mean 40.46" in [text.get_text() for text in axes.texts]
    [axes] = over_seeds({"model_6": [99.7, 99.8]}, {}).axes
    assert axes.get_ylim()[0] < 99.4


@pytest.mark.parametrize(
    ("corner", "title"),
    [
        ([], "No model reaches"),
        (["model_2"], "model_2 reaches"),
        (["model_1", "model_2"], "model_1 and model_2 reach"),
        (["model_1", "model_2", "model_3"], "model_1, model_2 and model_3 reach"),
    ],
)
def test_the_target_corner_is_headed_by_those_in_it(corner: list[str], title: str) -> None:
    good, bad = [(4, 9, 60)], [(4, 9, 61)]
    models = [measured(name, good if name in corner else bad) for name in ("model_1", "model_2", "model_3")]
    large = measured("model_4", good, parameters=8000)
    figure = plotting.accuracy_against_parameters([*models, large], PARAMS)
    assert figure.get_suptitle() == f"{title} 99.4 % with fewer than 8,000 parameters"


def test_accuracy_stands_over_parameters_with_its_interval_and_the_briefs_figure() -> None:
    model = measured("model_3", [(4, 9, 100)], parameters=5000)
    step = Step(target="", reference_parameters=None, reference_train_accuracy=None, reference_test_accuracy=98.7)
    report = NO_STORY.model_copy(update={"story": {"model_3": step, "model_4": step}})
    for params, brief in ((PARAMS, []), (PARAMS.model_copy(update={"report": report}), [[[5000, 98.7]]])):
        axes = plotting.accuracy_against_parameters([model], params).axes[0]
        (point, _, (bars,)) = axes.containers[0]
        assert points(point) == [[5000, 99.0]]
        np.testing.assert_allclose(bars.get_segments()[0], [(5000, model.interval[0]), (5000, model.interval[1])])
        hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white" and points(line)]
        assert [points(line) for line in hollow] == brief
        assert {line.get_markeredgecolor() for line in hollow} <= {plotting.model_style("model_3")[0]}
        low, high = axes.get_ylim()
        assert low < (98.7 if brief else model.interval[0]) and 99.4 < high
        assert "model_3\n99.00 %" in [text.get_text() for text in axes.texts]


def test_what_lies_far_below_is_written_at_the_edge_and_leaves_the_scale_to_the_rest() -> None:
    model, astray = measured("model_3", [(4, 9, 100)]), measured("model_4", [(4, 9, 900)])
    step = Step(target="", reference_parameters=None, reference_train_accuracy=None, reference_test_accuracy=97.3)
    story = PARAMS.model_copy(update={"report": NO_STORY.model_copy(update={"story": {"model_3": step}})})
    for models, params, text in (([model], story, "○ 97.30"), ([model, astray], PARAMS, "▾ model_4 91.00")):
        axes = plotting.accuracy_against_parameters(models, params).axes[0]
        assert text in [written.get_text() for written in axes.texts]
        assert axes.get_ylim()[0] == pytest.approx(max(97.4, model.interval[0] - 0.12) if models == [model] else 97.4)


def test_points_lie_where_the_figures_are_and_labels_do_not_overlap() -> None:
    pair = [measured("model_2", parameters=7000), measured("model_3", parameters=7010)]
    for models in (pair, pair[:1]):
        figure = plotting.accuracy_against_parameters(models, PARAMS)
        figure.draw_without_rendering()
        [axes] = figure.axes
        for model, bars in zip(models, axes.containers, strict=False):
            (x, y) = bars[0].get_transform().transform(bars[0].get_xydata())[0]
            assert axes.transData.inverted().transform((x, y)) == pytest.approx(
                (model.metrics["parameters"], model.metrics["test_accuracy"])
            )
        labels = [text.get_window_extent() for text in axes.texts if "model" in text.get_text()]
        assert len(labels) == len(models)
        assert not labels[0].overlaps(labels[-1]) or len(labels) == 1


@pytest.mark.parametrize(
    ("mistakes", "title"),
    [
        ([(4, 9, 30), (9, 4, 27)], "model_2 misreads 57 of 10,000 test digits,\nmost often a 4 as a 9 (30 times)"),
        ([(0, 6, 1)], "model_2 misreads 1 of 10,000 test digits,\nmost often a 0 as a 6 (once)"),
        ([], "model_2 misreads 0 of 10,000 test digits"),
    ],
)
def test_the_confusion_matrix_is_headed_by_its_mistakes_and_holds_the_counts(
    tmp_path: Path, mistakes: list[Mistake], title: str
) -> None:
    model = measured(mistakes=mistakes)
    figure = plotting.confusion_matrix(model)
    assert figure.get_suptitle() == title
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
    [
        (4, 4, "4 of 12 test images"),
        (11, 11, "11 of 12 test images"),
        (12, 12, "all 12 test images"),
        (40, 12, "all 12 test images"),
    ],
)
def test_the_surest_mistakes_are_shown_with_what_they_were_taken_for(shown: int, count: int, heading: str) -> None:
    model = measured(mistakes=[(4, 9, 3), (7, 2, 9)])
    figure = plotting.misread_digits(model, shown)
    assert figure.get_suptitle().startswith(f"What model_2 misreads: {heading}, the surest mistakes first\n")
    drawn = [axes for axes in figure.axes if axes.images]
    expected = ["4 → 9  99 %", "4 → 9  98 %", "4 → 9  97 %"] + [f"7 → 2  {96 - k} %" for k in range(9)]
    assert [axes.get_title() for axes in drawn] == expected[:count]
    # Ink is dark on a light ground.
    assert np.array_equal(255 - np.asarray(drawn[1].images[0].get_array()), DIGITS[1])


@pytest.mark.parametrize("each", [1, 500, 1000])
def test_a_model_without_mistakes_is_drawn(tmp_path: Path, each: int) -> None:
    models = [measured("model_1", [], each), measured("model_2", [(4, 9, 1)], each)]
    assert saved(plotting.accuracy_against_parameters(models, PARAMS), tmp_path / "parameters.png")
    assert saved(plotting.misread_digits(models[0], 4), tmp_path / "misread.png")


def test_what_the_brief_reports_far_below_is_written_at_the_edge_and_squeezes_nothing() -> None:
    model = measured("model_3", [(4, 9, 100)], parameters=5000)
    step = Step(target="", reference_parameters=None, reference_train_accuracy=None, reference_test_accuracy=90.0)
    params = PARAMS.model_copy(update={"report": NO_STORY.model_copy(update={"story": {"model_3": step}})})
    axes = plotting.accuracy_against_parameters([model], params).axes[0]
    assert axes.get_ylim()[0] > 98
    assert "○ 90.00" in [text.get_text() for text in axes.texts]


def test_a_model_that_knows_nothing_is_drawn(tmp_path: Path) -> None:
    model = measured(mistakes=[(digit, (digit + 1) % 10, 100) for digit in range(10)], each=100)
    assert saved(plotting.accuracy_against_parameters([model], PARAMS), tmp_path / "parameters.png")


@pytest.mark.parametrize(
    ("bounds", "deskew", "heading"),
    [
        ((15.0, 2.0, 10.0), False, "turned up to 15°, shifted up to 2 px, scaled up to 10 %"),
        ((0.0, 0.5, 0.0), False, "shifted up to 0.5 px"),
        ((0.0, 0.5, 0.0), True, "set upright, shifted up to 0.5 px"),
        ((0.0, 0.0, 0.0), True, "set upright"),
        ((0.0, 0.0, 0.0), False, "unchanged: its recipe has no augmentation"),
    ],
)
def test_augmented_digits_stand_below_their_originals_and_the_bounds_above(
    bounds: tuple[float, float, float], deskew: bool, heading: str
) -> None:
    augmentation = Augmentation(**dict(zip(Augmentation.model_fields, bounds, strict=True)))
    recipe = SETTINGS.models[SETTINGS.model].model_copy(update={"augmentation": augmentation, "deskew": deskew})
    rows = [DIGITS.flip(1).float() / 255, DIGITS.flip(2).float() / 255]
    figure = plotting.augmented_digits(DIGITS, rows, "model_2", recipe)
    assert figure.get_suptitle() == f"Training digits (top row) and what model_2 sees of them:\n{heading}"
    shown = np.stack([np.asarray(axes.images[0].get_array()) for axes in figure.axes])
    np.testing.assert_array_equal(shown, 1 - torch.cat([DIGITS.float() / 255, *rows]).numpy())


def test_the_longest_heading_of_augmented_digits_fits_above_eight_of_them() -> None:
    augmentation = Augmentation(rotation_deg=12.5, shift_px=2.5, scale_percent=12.5)
    recipe = SETTINGS.models[SETTINGS.model].model_copy(update={"augmentation": augmentation, "deskew": True})
    eight = DIGITS[:1].repeat(8, 1, 1)
    figure = plotting.augmented_digits(eight, [eight.float() / 255], "model_6", recipe)
    FigureCanvasAgg(figure).draw()
    [heading] = [text for text in figure.texts if text.get_text() == figure.get_suptitle()]
    box = heading.get_window_extent()
    assert 0 < box.x0 and box.x1 < figure.bbox.width and box.y1 <= figure.bbox.height
