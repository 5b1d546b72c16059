"""Accuracy on corrupted test images, models by corruptions."""

from math import isnan, log

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from torch import Tensor

from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.evaluation.corruptions import corruptions
from mnist_cnn.report.figures.style import NEUTRAL, NOTE, WIDTH, figure_of, inches_of, set_heading, styled
from mnist_cnn.report.robustness import MEAN, NONE, Row, rows_of
from mnist_cnn.settings.datasets import DataSet
from mnist_cnn.settings.robustness import Robustness

# All is laid out in pixels of the digits, which are so many inches wide.
_PIXEL = 0.011
# A row's height, a digit's width with the air behind it, the air between parts, the height of the colours' scale.
_ROW, _DIGIT, _AIR, _SCALE = 33, IMAGE_SIDE + 2, 9, 34
# The bounds of a cell's width.
_NARROWEST, _WIDEST = 44, 86
# Errors in percent from the lightest colour to the darkest, which is that of guessing. The colours differ in lightness
# throughout, so nobody needs to tell one hue from another.
_ERRORS = (0.3, 1, 3, 10, 30, 90)
_COLOURS, _UNKNOWN = "YlGnBu", "#F2F2F2"
_NOTE = (
    "Accuracy in percent on copies of the test images that guide nothing. The colour follows the error, on a "
    "logarithmic scale."
)


@styled
def robustness_map(accuracies: pd.DataFrame, examples: Tensor, severities: Robustness, data: DataSet) -> Figure:
    """A heat map of what ``robustness_table`` returns; beside each row, images as its corruption leaves them.

    Args:
        examples: uint8 ``(N, 28, 28)``, at least one; as many of the first as there is room for are shown.
    """
    rows, models = rows_of(accuracies), [str(name) for name in accuracies.columns]
    labels, tops = [row.label for row in rows], _tops(rows)
    beside = max(map(inches_of, labels)) + 0.35
    room = round((WIDTH - beside) / _PIXEL) - _AIR
    cell = min(_WIDEST, max(_NARROWEST, (room - _DIGIT) // len(models)))
    strip = _strip(rows, examples[: max(1, (room - cell * len(models)) // _DIGIT)], severities)
    bottom, left = strip.shape
    lefts = [left + _AIR + place * cell for place in range(len(models))]
    longest = max(map(inches_of, models))
    upright = longest < cell * _PIXEL - 0.06

    frame = (0, lefts[-1] + cell), (bottom + _SCALE, 0)
    above = 0.7 + (0.2 if upright else longest)
    figure = Figure((max(WIDTH, beside + frame[0][1] * _PIXEL), above + frame[1][0] * _PIXEL), layout="constrained")
    set_heading(figure, _title(accuracies), note=f"{data.title}. {_note(accuracies)}")
    axes = figure.add_subplot()
    axes.imshow(strip, cmap="gray", vmin=0, vmax=255, extent=(0, left, bottom, 0), interpolation="nearest")
    axes.set(xlim=frame[0], ylim=frame[1], anchor="NW")
    for row, top in zip(rows, tops, strict=True):
        for place, value in zip(lefts, row.accuracies, strict=True):
            _draw_cell(axes, value, place, top, cell, bold=row.name == MEAN)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_yticks([top + _ROW / 2 for top in tops], labels)
    axes.set_xticks([place + cell / 2 for place in lefts], models, rotation=0 if upright else 90)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    _draw_scale(axes, bottom + _AIR)
    return figure


def _tops(rows: list[Row]) -> list[int]:
    """Where rows begin, from the top; there is air between the corruptions and what is above and below them."""
    air = [_AIR * ((row.name != NONE) + (row.name == MEAN)) for row in rows]
    return [place * _ROW + above for place, above in enumerate(air)]


def _strip(rows: list[Row], digits: Tensor, severities: Robustness) -> np.ndarray:
    """Digits as each row's corruption leaves them, dark on white, one row below the other."""
    tops = _tops(rows)
    strip = np.full((tops[-1] + _ROW, len(digits) * _DIGIT), 255)
    corrupted = {NONE: digits} | {found.name: found(digits, severities.seed) for found in corruptions(severities)}
    for row, top in zip(rows, tops, strict=True):
        for place, pixels in enumerate(corrupted.get(row.name, ())):
            y, x = top + (_ROW - IMAGE_SIDE) // 2, place * _DIGIT
            strip[y : y + IMAGE_SIDE, x : x + IMAGE_SIDE] -= pixels.numpy()
    return strip


def _draw_cell(axes: Axes, accuracy: float, x: float, y: float, width: float, bold: bool) -> None:
    """An accuracy in percent on its colour; a dash where there is none."""
    known, (least, *_, most) = not isnan(accuracy), _ERRORS
    height = log(max(least, 100 - accuracy) / least) / log(most / least) if known else 0.0
    colour = colormaps[_COLOURS](height) if known else to_rgba(_UNKNOWN)
    axes.add_patch(Rectangle((x, y), width, _ROW, facecolor=colour, edgecolor="white", linewidth=0.8))
    # Of a colour's parts, green weighs most in how light it looks.
    light = np.dot(colour[:3], (0.21, 0.72, 0.07)) > 0.45
    axes.text(
        x + width / 2, y + _ROW / 2, f"{accuracy:.1f}" if known else "–", ha="center", va="center", fontsize=NOTE,
        color="black" if light else "white", weight="bold" if bold else "normal",
    )  # fmt: skip


def _draw_scale(axes: Axes, top: float) -> None:
    """What the colours mean, from ``top`` on at the right."""
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    long, high = min(300, right), 8
    within = axes.inset_axes((1 - long / right, 1 - (top + high) / bottom, long / right, high / bottom))
    colours = ScalarMappable(LogNorm(_ERRORS[0], _ERRORS[-1]), _COLOURS)
    scale = figure_of(axes).colorbar(colours, cax=within, orientation="horizontal")
    scale.outline.set_visible(False)
    within.tick_params(length=3, labelsize=NOTE, color=NEUTRAL)
    within.xaxis.set_major_locator(FixedLocator(_ERRORS))
    within.xaxis.set_minor_locator(NullLocator())
    within.xaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 - error:g}"))


def _title(accuracies: pd.DataFrame) -> str:
    known = accuracies.dropna(axis=1).droplevel(0)
    if known.empty:
        return "No model was looked at on the test set"
    hardest = set(known.iloc[1:-1].idxmin())
    if len(hardest) == 1:
        whom = "every model" if len(known.columns) > 1 else known.columns[0]
        return f"{hardest.pop()} is the hardest corruption for {whom}"
    return "Accuracy on corrupted test images"


def _note(accuracies: pd.DataFrame) -> str:
    missing = accuracies.isna().any(axis=None)
    return _NOTE + (" –: not looked at on the test set." if missing else "")
