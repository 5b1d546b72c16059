"""The confusion matrix, misclassified images, augmented images."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from mnist_cnn.engine.predictor import TTA_VIEWS
from mnist_cnn.evaluation.evaluate import Misclassified
from mnist_cnn.report.figures.claims import validation_images
from mnist_cnn.report.figures.style import NEUTRAL, NOTE, TEXT, WIDTH, inches_of, set_heading, styled
from mnist_cnn.report.results import ModelResult
from mnist_cnn.settings.datasets import DataSet
from mnist_cnn.settings.params import Augmentation, Recipe

_CELLS = "A cell has the share of the true class's images and, below it, their count. The diagonal is what is right."
_FRAME = "#B0B0B0"
_TRUE, _TAKEN_FOR, _OTHER = "#0072B2", "#D55E00", "#9A9A9A"


@styled
def confusion_matrix(model: ModelResult, data: DataSet) -> Figure:
    """Which classes were taken for which on validation: of each true class, the share in percent and the count.

    Mistakes are coloured by their share, and the diagonal is not, so that they are seen.
    """
    counts = np.array(model.confusion)
    images = counts.sum(axis=1)
    shares = 100 * counts / np.maximum(1, images)[:, None]
    mistakes = counts * (1 - np.eye(len(counts), dtype=int))
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    set_heading(figure, _on_mistakes(model.name, counts, mistakes, data), note=_CELLS)
    axes = figure.add_subplot(xlim=(-0.5, len(counts) + 1), ylim=(len(counts) - 0.5, -0.5))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    worst = max(0.5, (shares * (mistakes > 0)).max())
    for (row, column), count in np.ndenumerate(counts):
        colour = "white"
        if row == column:
            colour = "#ECECEC"
        elif count:
            # Even a single mistake is seen.
            colour = colormaps["YlOrBr"](0.12 + 0.5 * shares[row, column] / worst)
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="#DADADA", linewidth=0.7))
        if count:
            strong, small = ("normal", NEUTRAL) if row == column else ("bold", "black")
            _write(axes, column, row - 0.15, f"{shares[row, column]:.1f} %", TEXT - 0.5, small, strong)
            _write(axes, column, row + 0.23, f"{count:,}", NOTE, small)
    for row, total in enumerate(images):
        _write(axes, len(counts) + 0.2, row, f"{mistakes[row].sum():,} of {total:,}", NOTE, NEUTRAL)
    _write(axes, len(counts) + 0.2, -0.7, "wrong", NOTE, NEUTRAL)
    # Upright where they are wider than a cell.
    is_long = max(map(inches_of, data.labels)) > 0.5
    axes.set_xticks(range(len(counts)), data.labels, rotation=90 if is_long else 0)
    axes.set_yticks(range(len(counts)), data.labels)
    axes.tick_params(length=0)
    axes.set_xlabel("Predicted class", x=len(counts) / (len(counts) + 1.5) / 2)
    axes.set_ylabel("True class")
    return figure


def _on_mistakes(name: str, counts: np.ndarray, mistakes: np.ndarray, data: DataSet) -> str:
    title = f"{name} misclassifies {mistakes.sum():,} of {counts.sum():,} validation images of {data.title}"
    most = np.argwhere(mistakes == mistakes.max())
    # Of equals, none is named.
    if mistakes.any() and len(most) == 1:
        actual, predicted = most[0]
        title += f", most often {data.label(actual)} as {data.label(predicted)} ({_times(mistakes.max())})"
    return title


def _write(axes: Axes, x: float, y: float, words: str, size: float, colour: str, weight: str = "normal") -> None:
    axes.text(x, y, words, ha="center", va="center", fontsize=size, color=colour, fontweight=weight)


# Inches: of a misclassified image; with what is beside it and above, but for the classes' names; from there to the next
# one, and from one row to the next.
_SIDE, _WHOLE, _NEXT, _DOWN = 0.68, 1.37, 0.11, 0.97
_MOST_COLUMNS = 5
# Inches: from an image to its likeliest classes; from their names to their bars; of the bar of a certain one.
_CLASSES, _BARS, _CERTAIN = 0.06, 0.08, 0.24


@styled
def misclassified_images(model: ModelResult, shown: int, data: DataSet) -> Figure:
    """The validation images that a model misclassified, the most probable mistakes first, at most ``shown``.

    Each with its true class, and its three likeliest classes with their probabilities.
    """
    images = model.misclassified[:shown]
    if not images:
        validation = validation_images(model)
        figure, _ = _sheet(1, 0.1)
        set_heading(figure, f"{model.name} misclassifies none of {validation:,} validation images of {data.title}")
        return figure
    names = max(inches_of(label, weight="bold") for label in data.labels)
    across = _WHOLE + names + _NEXT
    columns = max(1, min(_MOST_COLUMNS, int((WIDTH + _NEXT) / across)))
    figure, axes = _sheet(across * columns - _NEXT, _DOWN * -(-len(images) // columns))
    set_heading(
        figure,
        f"{_of(len(images), len(model.misclassified))} validation images of {data.title} that {model.name} "
        "misclassifies",
        note="As they are, the most probable mistakes first. Beside each, its three likeliest classes with their "
        "probabilities in percent; the true one is blue.",
    )
    for place, image in enumerate(images):
        _draw_misclassified(axes, image, data, names, place % columns * across, place // columns * _DOWN)
    return figure


def _draw_misclassified(axes: Axes, image: Misclassified, data: DataSet, names: float, x: float, y: float) -> None:
    axes.text(x, y + 0.2, f"true: {data.label(image.label)}", fontsize=TEXT, color=_TRUE, weight="bold", va="baseline")
    y += 0.26
    _draw_digit(axes, np.array(image.pixels) / 255, x, y, _SIDE)
    for place, (label, probability) in enumerate(image.likeliest):
        middle = y + (place + 0.5) * _SIDE / len(image.likeliest)
        colour = _TRUE if label == image.label else _TAKEN_FOR if place == 0 else _OTHER
        left = x + _SIDE + _CLASSES
        weight = "bold" if label == image.label or place == 0 else "normal"
        _write(axes, left + names / 2, middle, data.label(label), TEXT, colour if weight == "bold" else NEUTRAL, weight)
        bar, length = left + names + _BARS, max(0.01, _CERTAIN * probability)
        axes.add_patch(Rectangle((bar, middle - 0.06), length, 0.12, color=colour, linewidth=0))
        axes.text(bar + length + 0.05, middle, _percent(probability), fontsize=NOTE, va="center")


# Inches: of a digit where there are many and where there are few, and the air beside it; of what a title takes.
_SMALLEST, _LARGEST, _GAP, _TITLE = 0.28, 0.56, 0.05, 0.42


@styled
def augmented_images(
    name: str,
    data: DataSet,
    recipe: Recipe,
    written: Tensor,
    deskewed: Tensor,
    epochs: Sequence[Tensor],
    views: Sequence[Tensor],
) -> Figure:
    """Training images, and below them what a model sees of them: a row each way.

    Args:
        written, deskewed: ``(N, 28, 28)`` uint8; the second is shown where the recipe deskews.
        epochs: as augmented in each epoch, ``(N, 28, 28)`` float in [0, 1].
        views: those of test-time augmentation, in the order of ``TTA_VIEWS``; shown where the recipe has it.
    """
    groups = [("", {"as they are": written / 255})]
    if recipe.deskew:
        groups[0][1]["deskewed"] = deskewed / 255
    if changes := _changes(recipe.augmentation):
        rows = {f"epoch {number}": digits for number, digits in enumerate(epochs, 1)}
        groups.append((f"In training: {changes}, anew in each epoch", rows))
    if recipe.tta:
        rows = {_view(*view): digits for view, digits in zip(TTA_VIEWS, views, strict=True)}
        groups.append(("In use: the logits of these views are averaged (test-time augmentation)", rows))
    names = 0.2 + max(inches_of(words) for _, rows in groups for words in rows)
    side = min(_LARGEST, max(_SMALLEST, (WIDTH - 0.3 - names) / len(written) - _GAP))
    height = sum(_TITLE * bool(title) + len(rows) * (side + _GAP) for title, rows in groups)
    figure, axes = _sheet(names + len(written) * (side + _GAP), height)
    unchanged = "Its recipe neither deskews nor augments." if len(groups) == len(groups[0][1]) == 1 else ""
    set_heading(figure, f"What {name} sees of the training images of {data.title}", note=unchanged)
    y = 0.0
    for title, rows in groups:
        if title:
            axes.text(0, y + 0.75 * _TITLE, title, fontsize=TEXT, weight="bold", va="baseline")
            y += _TITLE
        for words, digits in rows.items():
            axes.text(0, y + side / 2, words, fontsize=TEXT, va="center")
            for place, digit in enumerate(digits.numpy()):
                _draw_digit(axes, digit, names + place * (side + _GAP), y, side)
            y += side + _GAP
    return figure


def _changes(bounds: Augmentation) -> str:
    """What random augmentation does, in words; none where it does nothing."""
    words = (
        ("rotated", bounds.rotation_deg, "°"),
        ("shifted", bounds.shift_px, " px"),
        ("scaled", bounds.scale_percent, " %"),
    )
    return ", ".join(f"{how} up to {bound:g}{unit}" for how, bound, unit in words if bound)


def _view(angle_deg: float, left_px: float, up_px: float) -> str:
    """A view of test-time augmentation, in words."""
    words = (
        (angle_deg, "° anticlockwise", "° clockwise"),
        (left_px, " px left", " px right"),
        (up_px, " px up", " px down"),
    )
    return ", ".join(f"{abs(by):g}{less if by < 0 else more}" for by, more, less in words if by) or "as it is"


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with axes in inches, downwards from the upper left corner."""
    figure = Figure(figsize=(max(WIDTH, width + 0.25), height + 0.5), layout="constrained")
    axes = figure.add_subplot(xlim=(-0.02, width), ylim=(height, -0.02), aspect="equal", anchor="NW")
    axes.set_axis_off()
    return figure, axes


def _draw_digit(axes: Axes, ink: np.ndarray, x: float, y: float, side: float) -> None:
    """A digit, dark on a light ground, in a frame."""
    axes.imshow(1 - ink, cmap="gray", vmin=0, vmax=1, extent=(x, x + side, y + side, y), interpolation="none")
    axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=_FRAME, linewidth=0.7))


def _percent(probability: float) -> str:
    """A probability in percent, not rounded to certainty."""
    return "<1" if probability < 0.005 else ">99" if probability >= 0.995 else f"{100 * probability:.0f}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _of(shown: int, total: int) -> str:
    return f"All {total:,}" if shown == total else f"{shown:,} of the {total:,}"
