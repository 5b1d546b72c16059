"""Test accuracy over seeds."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_cnn.report.figures.labels import Label, Obstacle, mark_below, settle
from mnist_cnn.report.figures.style import (
    NEUTRAL,
    draw_target,
    figure_of,
    in_lines,
    inches_of,
    model_style,
    reference_accuracy,
    set_heading,
    set_legend_below,
    styled,
)
from mnist_cnn.settings.params import Params

# Percent by seed, by model.
Accuracies = dict[str, list[float]]


@styled
def accuracy_over_seeds(
    own: Accuracies, shared: Accuracies, sizes: dict[str, int], params: Params, shared_recipe: str
) -> Figure:
    """Test accuracy of every seed with its mean, the target, and the reference figures.

    Args:
        own, shared: by the models' own recipes and, where another model's has trained them too, by ``shared_recipe``.
        sizes: parameters by model.
    """
    figure, axes = _frame(own, shared, sizes, params.targets.test_accuracy)
    labels: list[Label] = []
    obstacles: list[Obstacle] = []
    for place, name in enumerate(own):
        kinds = [(own[name], True), (shared[name], False)] if name in shared else [(own[name], True)]
        for (values, filled), aside in zip(kinds, (-0.19, 0.19) if len(kinds) > 1 else (0.0,), strict=True):
            obstacles += _draw_seeds(axes, place + aside, values, name, filled)
            labels += _mark_below_range(axes, place + aside - 0.1, values)
        reference = reference_accuracy(params, name)
        if reference is not None and reference >= axes.get_ylim()[0]:
            axes.plot(place - 0.43, reference, "x", color=NEUTRAL, markersize=7)
            obstacles.append(Obstacle((place - 0.43, reference), (place - 0.43, reference), 4, 8))
        elif reference is not None:
            labels.append(mark_below(axes, place - 0.46, "×", f"{reference:.2f}"))
    _explain_seeds(axes, shared_recipe if shared else None)
    settle(axes, labels, obstacles)
    return figure


def _frame(own: Accuracies, shared: Accuracies, sizes: dict[str, int], target: float) -> tuple[Figure, Axes]:
    """The picture without its seeds: heading, scales, the target, the models' names."""
    names = [f"{in_lines(name)}\n{sizes[name]:,}" for name in own]
    room = max(1.05, 0.15 + max(inches_of(line) for name in names for line in name.split("\n")))
    height = 5.6 + 0.18 * (max(name.count("\n") for name in names) - 1)
    figure = Figure(figsize=(max(10, 1.35 + room * (len(own) + 0.2)), height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False, axis="x")
    best = max(own, key=lambda name: np.mean(own[name]))
    set_heading(
        figure,
        f"{best} averages {np.mean(own[best]):.2f} % over {len(own[best])} seeds, the lowest {min(own[best]):.2f} %",
    )
    # A seed that diverged should not flatten all the rest.
    every = [value for values in (*own.values(), *shared.values()) for value in values]
    shown = [value for value in every if value > target - 2] + [target]
    axes.set_ylim(min(shown) - 0.12, min(100.0, max(shown) + 0.08))
    axes.set_xlim(-0.6, len(own) - 0.4)
    draw_target(axes, target)
    axes.set_xticks(range(len(own)), names)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("Model and its parameters")
    axes.set_ylabel("Test accuracy after the last epoch (%)")
    return figure, axes


def _draw_seeds(axes: Axes, middle: float, values: list[float], name: str, filled: bool) -> list[Obstacle]:
    """The seeds of one recipe and their mean."""
    colour, marker, _ = model_style(name)
    face = colour if filled else "white"
    # Side by side in the order of the seeds: nothing hides behind another.
    across = middle + np.linspace(-0.1, 0.1, len(values))
    axes.plot(across, values, marker, color=colour, markerfacecolor=face, markersize=6, alpha=0.9, linestyle="none")
    axes.hlines(np.mean(values), middle - 0.17, middle + 0.17, color="black", linewidth=1.6, zorder=3)
    return [Obstacle((x, value), (x, value), 4, 8) for x, value in zip(across, values, strict=True)]


def _mark_below_range(axes: Axes, x: float, values: list[float]) -> list[Label]:
    """Write which of a recipe's seeds lie below the picture, if any."""
    below = [value for value in values if value < axes.get_ylim()[0]]
    many = f"{len(below)} seeds, " if below[1:] else ""
    return [mark_below(axes, x, "▾", f"{many}{min(below):.2f}, mean {np.mean(values):.2f}")] if below else []


def _explain_seeds(axes: Axes, shared_recipe: str | None) -> None:
    axes.plot([], [], "o", color=NEUTRAL, label="a seed, own recipe")
    if shared_recipe:
        axes.plot([], [], "o", color=NEUTRAL, markerfacecolor="white", label=f"a seed, {shared_recipe}'s recipe")
    axes.plot([], [], color="black", linewidth=1.6, label="mean")
    axes.plot([], [], "x", color=NEUTRAL, label="reference: best epoch of one run")
    set_legend_below(figure_of(axes), *axes.get_legend_handles_labels())
