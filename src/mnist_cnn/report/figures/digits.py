"""The confusion matrix, misclassified digits, augmented digits."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from mnist_cnn.report.figures.style import set_heading, styled
from mnist_cnn.report.results import ModelResult
from mnist_cnn.settings.params import Recipe


@styled
def confusion_matrix(model: ModelResult) -> Figure:
    """Counts of true against predicted digit; mistakes coloured by their number."""
    counts = np.array(model.confusion)
    mistakes = counts * (1 - np.eye(len(counts), dtype=int))
    actual, predicted = np.unravel_index(mistakes.argmax(), mistakes.shape)
    title = f"{model.name} misclassifies {mistakes.sum():,} of {counts.sum():,} test digits"
    if mistakes.any():
        title += f",\nmost often a {actual} as a {predicted} ({_times(mistakes.max())})"
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False)
    set_heading(figure, title, 12)
    axes.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(1, mistakes.max()) * 1.6)
    for (row, column), count in np.ndenumerate(counts):
        on_diagonal = row == column
        if on_diagonal:
            axes.add_patch(matplotlib.patches.Rectangle((column - 0.5, row - 0.5), 1, 1, color="#EEEEEE"))
        if count:
            weight = "normal" if on_diagonal else "bold"
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=10, fontweight=weight)
    axes.set_xticks(range(len(counts)))
    axes.set_yticks(range(len(counts)))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("Predicted digit")
    axes.set_ylabel("True digit")
    return figure


@styled
def misclassified_digits(model: ModelResult, shown: int) -> Figure:
    """The test images that a model misclassified, the highest probability first, at most ``shown``."""
    images = model.misclassified[:shown]
    columns = 8
    rows = max(1, -(-len(images) // columns))
    figure = _picture_grid(columns, rows, 1.28)
    total = len(model.misclassified)
    if not total:
        set_heading(figure, f"{model.name} misclassifies no test image", 12)
        return figure
    which = f"{_of(len(images), total)} that {model.name} misclassifies, most probable mistakes first"
    set_heading(figure, f"{which}\ntrue digit → predicted digit, its probability", 12)
    for axes, image in zip(figure.axes, images, strict=False):
        axes.imshow(255 - np.array(image.pixels), cmap="gray", vmin=0, vmax=255)
        axes.set_title(
            f"{image.label} → {image.predicted}  {100 * image.probability:.0f} %", loc="center", fontsize=9.5
        )
    return figure


@styled
def augmented_digits(originals: Tensor, augmented: list[Tensor], name: str, recipe: Recipe) -> Figure:
    """Training digits on top, and below them what a model saw of them in as many epochs as there are rows.

    Args:
        originals: ``(N, 28, 28)`` uint8.
        augmented: rows of ``(N, 28, 28)`` float images in [0, 1].
    """
    bounds = recipe.augmentation
    figure = _picture_grid(len(originals), 1 + len(augmented), 0.77)
    changes = ["deskewed"] if recipe.deskew else []
    changes += [
        f"{how} up to {bound:g}{unit}"
        for how, bound, unit in (
            ("rotated", bounds.rotation_deg, "°"),
            ("shifted", bounds.shift_px, " px"),
            ("scaled", bounds.scale_percent, " %"),
        )
        if bound
    ]
    what = ", ".join(changes) or "unchanged: its recipe has no augmentation"
    set_heading(figure, f"Training digits (top row) and what {name} sees of them:\n{what}", 11)
    for row, images in enumerate([originals.float() / 255, *augmented]):
        for column, image in enumerate(images):
            figure.axes[row * len(originals) + column].imshow(1 - image.numpy(), cmap="gray", vmin=0, vmax=1)
    for row, label in enumerate(("original", "as seen")):
        axes = figure.axes[row * len(originals)]
        axes.text(-0.05, 0.5, label, transform=axes.transAxes, ha="right", va="center", rotation=90, fontsize=9)
    return figure


def _picture_grid(columns: int, rows: int, inches: float) -> Figure:
    # However few the pictures are, there is room for the heading.
    figure = Figure(figsize=(max(5.2, columns * inches * 0.85), rows * inches + 0.7), layout="constrained")
    for place in range(rows * columns):
        figure.add_subplot(rows, columns, place + 1).set_axis_off()
    return figure


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _of(shown: int, total: int) -> str:
    return f"All {total:,} test images" if shown == total else f"{shown:,} of the {total:,} test images"
