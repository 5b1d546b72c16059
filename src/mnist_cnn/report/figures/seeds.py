"""Test accuracy over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_cnn.evaluation.intervals import student_interval
from mnist_cnn.report.figures.claims import Interval, listed
from mnist_cnn.report.figures.style import (
    NEUTRAL,
    NOTE,
    REFERENCE,
    WIDTH,
    figure_of,
    model_style,
    reference_accuracy,
    set_heading,
    set_legend_below,
    styled,
)
from mnist_cnn.settings.datasets import DataSet
from mnist_cnn.settings.params import Targets
from mnist_cnn.settings.story import Story

# Percent by seed, by model.
Accuracies = Mapping[str, Sequence[float]]

# Inches: of a row, and of the air between models.
_ROW, _AIR = 0.37, 0.13
# Points below a row's middle: where its mean is, and the lowest and the highest of its seeds.
_MEAN, _LOWEST, _HIGHEST = 8.0, 0.5, -10.0
_MARKER = 4.5
# Points from the frame, and to which side: how many seeds, their mean, its interval.
_COLUMNS = ((38, "right"), (78, "right"), (88, "left"))
_EXPLAINED = (
    "Each seed's accuracy after the last epoch, one above another where they are equal; below them their mean, with "
    "its 95 % interval over seeds, on the same test images."
)


class _Row(NamedTuple):
    """The seeds of a model by one recipe, in percent; ``middle`` is in inches from the top."""

    name: str
    own: bool
    values: Sequence[float]
    middle: float

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def interval(self) -> Interval:
        """95 % interval of the mean; nan of a single seed."""
        low, high = student_interval(self.values)
        # Of seeds some of which diverged, it would go on above all that there is.
        return float(np.clip(low, 0, 100)), float(np.clip(high, 0, 100))

    def at(self, points: float) -> float:
        """Inches from the top to what is so far below the middle."""
        return self.middle + points / 72


@styled
def accuracy_over_seeds(
    own: Accuracies,
    shared: Accuracies,
    sizes: Mapping[str, int],
    targets: Targets,
    story: Story,
    shared_recipe: str,
    data: DataSet,
) -> Figure:
    """Test accuracy of every seed, a row a recipe, with mean and interval, the target, and the reference figures.

    Args:
        own, shared: by the models' own recipes and, where another model's has trained them too, by ``shared_recipe``.
        sizes: parameters by model.
    """
    rows = _rows(own, shared)
    references = {name: reference_accuracy(story, name) for name in own}
    figure = Figure(figsize=(WIDTH, rows[-1].middle + _ROW / 2 + 1.5), layout="constrained")
    axes = figure.add_subplot()
    set_heading(figure, _title(rows, sizes, targets), note=f"{data.title}. {_EXPLAINED}")
    _draw_frame(axes, rows, sizes, targets.test_accuracy)
    left = axes.get_xlim()[0]
    figure.draw_without_rendering()
    for row in rows:
        _draw_seeds(axes, row)
        _draw_mean(axes, row)
        reference = references[row.name] if row.own else None
        if reference is not None and reference >= left:
            axes.plot(reference, row.at(_MEAN), color=NEUTRAL, **REFERENCE)
        elif reference is not None:
            _write_at_edge(axes, row.at(_MEAN), f"◂ × {reference:.2f}")
    _explain(axes, shared_recipe if shared else None, any(reference is not None for reference in references.values()))
    return figure


def _rows(own: Accuracies, shared: Accuracies) -> list[_Row]:
    rows: list[_Row] = []
    for place, name in enumerate(own):
        for recipe in (own, shared):
            if name in recipe:
                top = _ROW * len(rows) + _AIR * place + _AIR / 2
                rows.append(_Row(name, recipe is own, recipe[name], top + _ROW / 2))
    return rows


def _title(rows: list[_Row], sizes: Mapping[str, int], targets: Targets) -> str:
    reaching = [
        row.name
        for row in rows
        if row.own and row.interval[0] >= targets.test_accuracy and sizes[row.name] < targets.parameters_below
    ]
    if not reaching:
        return "Test accuracy over seeds"
    has, whole = ("have", "whole intervals") if reaching[1:] else ("has", "its whole interval")
    return (
        f"{listed(reaching)} {has} fewer than {targets.parameters_below:,} parameters and {whole} "
        f"above {targets.test_accuracy:g} %"
    )


def _draw_frame(axes: Axes, rows: list[_Row], sizes: Mapping[str, int], target: float) -> None:
    """Scales, the target, the models' names, and columns of numbers."""
    # A seed that diverged should not flatten all the rest.
    values = [value for row in rows for value in (*row.values, row.interval[0])]
    shown = [value for value in values if value > target - 2] + [target]
    left, right = min(shown) - 0.06, min(100.0, max(shown) + 0.06)
    # Room for what is written at the left edge.
    axes.set_xlim(left - 0.14 * (right - left), right)
    axes.set_ylim(rows[-1].middle + (_ROW + _AIR) / 2, 0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    ticks, names = [], []
    for place, name in enumerate(dict.fromkeys(row.name for row in rows)):
        middles = [row.middle for row in rows if row.name == name]
        ticks.append((middles[0] + middles[-1]) / 2)
        names.append(f"{name}\n{sizes[name]:,} parameters")
        if place % 2 == 0:
            reach = (_ROW + _AIR) / 2
            axes.axhspan(middles[0] - reach, middles[-1] + reach, color="#F4F4F4", linewidth=0, zorder=0)
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0)
    axes.axvline(target, color=NEUTRAL, linewidth=1.2, linestyle=":", zorder=1)
    axes.annotate(
        f"target {target:g} %", (target, 1), (0, 5), xycoords=("data", "axes fraction"), textcoords="offset points",
        ha="center", fontsize=NOTE, color=NEUTRAL,
    )  # fmt: skip
    _write_columns(axes, 0, ("seeds", "mean", "95 % interval"), 5)
    for row in rows:
        low, high = row.interval
        interval = "" if np.isnan(low) else f"{low:.2f} to {high:.2f}"
        _write_columns(axes, row.middle, (f"{len(row.values)}", f"{row.mean:.2f}", interval))
    axes.set_xlabel("Test accuracy after the last epoch (%)")


def _write_columns(axes: Axes, height: float, words: tuple[str, ...], up: float | None = None) -> None:
    """Words beside the frame: at a row, or so many points above all."""
    for word, (right, align) in zip(words, _COLUMNS, strict=True):
        axes.annotate(
            word, (1, height), (right, up or 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha=align, va="baseline" if up else "center", fontsize=NOTE, color=NEUTRAL if up else "black",
        )  # fmt: skip


def _draw_seeds(axes: Axes, row: _Row) -> None:
    """The seeds, side by side or one above another; of those that lie outside, how many and the lowest."""
    colour, marker, _ = model_style(row.name)
    left = axes.get_xlim()[0]
    inside = sorted(value for value in row.values if value >= left)
    outside = [value for value in row.values if value < left]
    if outside:
        many = f"{len(outside)} seeds, " if outside[1:] else ""
        _write_at_edge(axes, row.at(_LOWEST - 4), f"◂ {many}{min(outside):.2f}")
    if not inside:
        return
    places = axes.transData.transform([(value, 0) for value in inside])[:, 0] * 72 / figure_of(axes).dpi
    layers = _layers(places.tolist(), _MARKER + 0.4)
    step = min(_MARKER, (_LOWEST - _HIGHEST) / max(1, *layers))
    axes.plot(
        inside, [row.at(_LOWEST - step * layer) for layer in layers], marker, color=colour, markersize=_MARKER,
        markerfacecolor=colour if row.own else "white", markeredgewidth=0.9, linestyle="none", clip_on=False,
    )  # fmt: skip


def _layers(places: list[float], width: float) -> list[int]:
    """For each of sorted places the lowest layer in which nothing so wide overlaps."""
    ends: list[float] = []
    layers = []
    for place in places:
        layer = next((layer for layer, end in enumerate(ends) if place >= end), len(ends))
        ends[layer : layer + 1] = [place + width]
        layers.append(layer)
    return layers


def _draw_mean(axes: Axes, row: _Row) -> None:
    height = row.at(_MEAN)
    low, high = row.interval
    if row.mean < axes.get_xlim()[0]:  # what is left of the interval would be a line across
        return
    if not np.isnan(low):
        axes.plot([low, high], [height, height], color="black", linewidth=1.6)
    axes.plot(row.mean, height, "|", color="black", markersize=9, markeredgewidth=1.6)


def _write_at_edge(axes: Axes, height: float, words: str) -> None:
    axes.annotate(
        words, (0, height), (2, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
        fontsize=NOTE, color=NEUTRAL,
    )  # fmt: skip


def _explain(axes: Axes, shared_recipe: str | None, references: bool) -> None:
    axes.plot([], [], "o", color=NEUTRAL, markersize=_MARKER, label="a seed, own recipe")
    if shared_recipe:
        name = f"a seed, {shared_recipe}'s recipe"
        axes.plot([], [], "o", color=NEUTRAL, markersize=_MARKER, markerfacecolor="white", label=name)
    axes.plot([], [], "|-", color="black", linewidth=1.6, markersize=9, markeredgewidth=1.6, label="mean, interval")
    if references:
        axes.plot([], [], color=NEUTRAL, label="reference: one run's best epoch", **REFERENCE)
    set_legend_below(figure_of(axes), *axes.get_legend_handles_labels())
