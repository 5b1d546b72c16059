"""Numbers to figures: each function draws one picture and returns it; ``save`` writes it.

Drawn without pyplot, so nothing here has global state. One colour, marker and dash a model, everywhere;
lightness differs too, so that the curves can be told apart in grey.
"""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from torch import Tensor

from mnist_cnn.files import whole_file
from mnist_cnn.models import MODELS
from mnist_cnn.params import Params, Recipe
from mnist_cnn.report import Measured

# Source of the colours: "Color Universal Design", Okabe and Ito, 2008, https://jfly.uni-koeln.de/color/
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#B33C00", "#0072B2", "#000000", "#8A7A00")
MARKERS = "osD^vPX*"
_DASHES = ("-", (0, (6, 2)), (0, (3, 1.5)), (0, (6, 2, 1.5, 2)), "-", (0, (1, 1)), (0, (6, 1, 1, 1, 1, 1)), "--")
_TARGET = "#444444"

_STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 150,
    # Air around all, which a dark page shows.
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
}

# Each function that draws does so in this style, and leaves matplotlib's own as it was.
_styled = matplotlib.rc_context(_STYLE)


@_styled
def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; equal figures give equal bytes."""
    with whole_file(path) as scratch:
        figure.savefig(scratch, format="png", metadata={"Software": None})


def model_style(name: str) -> tuple[str, str, Any]:
    """Colour, marker and dash of a model: its own in every picture, whichever others are shown."""
    place = MODELS.index(name)
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)], _DASHES[place % len(_DASHES)]


@_styled
def accuracy_curves(models: list[Measured], params: Params) -> Figure:
    """Training and validation accuracy by epoch, in two panels on one scale."""
    best = max(models, key=lambda model: model.history["val_accuracy"].iloc[-1])
    title = f"{best.name} ends highest on validation, at {best.history['val_accuracy'].iloc[-1]:.2f} %"
    figure, panels = _two_panels(title)
    for panel, part, name in zip(panels, ("train", "val"), ("Training, as trained on", "Validation"), strict=True):
        _draw_curves(panel, models, f"{part}_accuracy")
        panel.set_title(name)
    target = params.targets.test_accuracy
    _draw_target(panels[0], target, labelled=False)
    _draw_target(panels[1], target)
    # Without the first fifth of the run, which may lie so low that it would flatten all the rest.
    lowest = min(float(model.history["val_accuracy"].iloc[len(model.history) // 5 :].min()) for model in models)
    highest = max(float(model.history[["train_accuracy", "val_accuracy"]].to_numpy().max()) for model in models)
    panels[0].set_ylim(max(0.0, np.floor(min(lowest, 99.0))), min(100.0, max(highest, target) + 0.1))
    panels[0].set_ylabel("Accuracy (%)")
    return figure


@_styled
def loss_curves(models: list[Measured]) -> Figure:
    """Training and validation loss by epoch, in two panels on one logarithmic scale."""
    best = min(models, key=lambda model: model.history["val_loss"].iloc[-1])
    title = f"{best.name} ends lowest on validation, at a loss of {best.history['val_loss'].iloc[-1]:.3f}"
    figure, panels = _two_panels(title)
    for panel, part, name in zip(panels, ("train", "val"), ("Training, as trained on", "Validation"), strict=True):
        _draw_curves(panel, models, f"{part}_loss")
        panel.set_title(name)
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]))
    panels[0].yaxis.set_minor_locator(NullLocator())
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panels[0].set_ylabel("Cross-entropy (nats)")
    return figure


@_styled
def accuracy_against_parameters(models: list[Measured], params: Params) -> Figure:
    """Test accuracy with its interval against parameters, the brief's figures and the target lines."""
    targets = params.targets
    reaching = [
        model.name
        for model in models
        if model.metrics["meets_accuracy_target"] and model.metrics["meets_parameters_target"]
    ]
    names = ", ".join([*reaching[:-2], " and ".join(reaching[-2:])])
    who = f"{names} reach{'es' if len(reaching) == 1 else ''}" if reaching else "No model reaches"
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.add_subplot()
    figure.suptitle(f"{who} {targets.test_accuracy:g} % with fewer than {targets.parameters_below:,} parameters")
    shown = [targets.test_accuracy, *(bound for model in models for bound in model.interval)]
    # What lies far below should not flatten all the rest.
    bottom, top = max(min(shown) - 0.12, targets.test_accuracy - 2), min(100.0, max(shown) + 0.1)
    counts = [model.metrics["parameters"] for model in models]
    left, right = 0.8 * min(*counts, targets.parameters_below), 1.35 * max(*counts, targets.parameters_below)
    for place, model in enumerate(models):
        x, y, (low, high) = model.metrics["parameters"], model.metrics["test_accuracy"], model.interval
        colour, marker, _ = model_style(model.name)
        # Of two neighbours the first has its label to the left; so has who has none, where the limit would cross it.
        before, after = (any(_is_beside(model, o) for o in others) for others in (models[:place], models[place + 1 :]))
        side = -1 if after or (not before and 0.75 < x / targets.parameters_below < 0.95) else 1
        axes.errorbar(
            x,
            y,
            [[max(0, y - low)], [max(0, high - y)]],
            color=colour,
            marker=marker,
            markersize=9,
            capsize=4,
        )
        axes.annotate(
            f"{model.name}\n{y:.2f} %",
            (x, y),
            (12 * side, 0),
            textcoords="offset points",
            va="center",
            ha="left" if side > 0 else "right",
            # The target's line may pass behind it.
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
        if y < bottom:
            _mark_below(axes, x, bottom, f"▾ {model.name} {y:.2f}")
        step = params.report.story.get(model.name)
        brief = step.brief_test_accuracy if step else None
        if brief is not None and brief >= bottom:
            axes.plot(
                x,
                brief,
                marker=marker,
                markersize=8,
                markerfacecolor="white",
                markeredgecolor=colour,
                linestyle="none",
            )
        elif brief is not None:
            _mark_below(axes, x, bottom, f"○ {brief:.2f}")
    _draw_target(axes, targets.test_accuracy)
    axes.axvline(targets.parameters_below, color=_TARGET, linewidth=1.2, linestyle=":", zorder=1)
    corner_bottom = (targets.test_accuracy - bottom) / (top - bottom)
    axes.axvspan(left, targets.parameters_below, corner_bottom, 1, color="#009E73", alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    ticks = [tick for tick in (1000, 2000, 4000, 8000, 16000, 32000, 64000) if left <= tick <= right]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("Parameters (logarithmic)")
    axes.set_ylabel("Test accuracy (%)")
    filled = axes.errorbar([], [], [[], []], color=_TARGET, marker="o", linestyle="none", capsize=4)
    hollow = axes.plot([], [], color=_TARGET, marker="o", markerfacecolor="white", linestyle="none")[0]
    axes.legend(
        [filled, hollow],
        ["last epoch, 95 % interval over test images", "the brief: best epoch of one run"],
        loc="lower right",
    )
    return figure


@_styled
def accuracy_over_seeds(
    own: dict[str, list[float]], equal: dict[str, list[float]], sizes: dict[str, int], params: Params, equal_recipe: str
) -> Figure:
    """Test accuracy of every seed with its mean, the target, and the brief's figures.

    Args:
        own, equal: in percent, by model, of its own recipe and, where it was trained so too, of ``equal_recipe``'s.
        sizes: parameters by model.
    """
    best = max(own, key=lambda name: np.mean(own[name]))
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False, axis="x")
    figure.suptitle(
        f"{best} averages {np.mean(own[best]):.2f} % over {len(own[best])} seeds, the lowest {min(own[best]):.2f} %"
    )
    target = params.targets.test_accuracy
    # A seed that went astray should not flatten all the rest.
    shown = [value for values in (*own.values(), *equal.values()) for value in values if value > target - 2] + [target]
    bottom, top = min(shown) - 0.12, max(shown) + 0.08
    axes.set_ylim(bottom, min(100.0, top))
    for place, name in enumerate(own):
        colour, marker, _ = model_style(name)
        kinds = [(own[name], colour), (equal[name], "white")] if name in equal else [(own[name], colour)]
        for (values, face), aside in zip(kinds, (-0.19, 0.19) if len(kinds) > 1 else (0.0,), strict=True):
            middle = place + aside
            # Side by side in the order of the seeds: nothing hides behind another.
            across = middle + np.linspace(-0.1, 0.1, len(values))
            axes.plot(
                across, values, marker, color=colour, markerfacecolor=face, markersize=6, alpha=0.9, linestyle="none"
            )
            axes.hlines(np.mean(values), middle - 0.17, middle + 0.17, color="black", linewidth=1.6, zorder=3)
            below = [value for value in values if value < bottom]
            if below:
                many = f"{len(below)} seeds, " if below[1:] else ""
                _mark_below(axes, middle - 0.1, bottom, f"▾ {many}{min(below):.2f}, mean {np.mean(values):.2f}")
        step = params.report.story.get(name)
        brief = step.brief_test_accuracy if step else None
        if brief is not None and brief >= bottom:
            axes.plot(place - 0.43, brief, "x", color=_TARGET, markersize=7)
        elif brief is not None:
            _mark_below(axes, place - 0.46, bottom, f"× {brief:.2f}")
    _draw_target(axes, target)
    axes.set_xticks(range(len(own)), [f"{name}\n{sizes[name]:,}" for name in own])
    axes.set_xlim(-0.6, len(own) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("Model and its parameters")
    axes.set_ylabel("Test accuracy after the last epoch (%)")
    axes.plot([], [], "o", color=_TARGET, label="a seed, own recipe")
    axes.plot([], [], "o", color=_TARGET, markerfacecolor="white", label=f"a seed, {equal_recipe}'s recipe")
    axes.plot([], [], color="black", linewidth=1.6, label="mean")
    axes.plot([], [], "x", color=_TARGET, label="the brief: best epoch of one run")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _draw_target(axes: Axes, target: float, labelled: bool = True) -> None:
    """A line at the target's accuracy, named to the right of the picture."""
    axes.axhline(target, color=_TARGET, linewidth=1.2, linestyle=":", zorder=1)
    if labelled:
        axes.annotate(
            f"target\n{target:g} %",
            (1, target),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=_TARGET,
        )


def _mark_below(axes: Axes, x: float, bottom: float, text: str) -> None:
    """Write what lies below the picture at its lower edge."""
    axes.annotate(
        text,
        (x, bottom),
        (-4, 3),
        textcoords="offset points",
        fontsize=9,
        color=_TARGET,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )


@_styled
def confusion_matrix(model: Measured) -> Figure:
    """Counts of true against predicted digit; mistakes coloured by their number."""
    counts = np.array(model.confusion)
    mistakes = counts * (1 - np.eye(len(counts), dtype=int))
    actual, predicted = np.unravel_index(mistakes.argmax(), mistakes.shape)
    title = f"{model.name} misreads {mistakes.sum():,} of {counts.sum():,} test digits"
    if mistakes.any():
        title += f",\nmost often a {actual} as a {predicted} ({_times(mistakes.max())})"
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False)
    figure.suptitle(title, fontsize=12)
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


@_styled
def misread_digits(model: Measured, shown: int) -> Figure:
    """The test images that a model misread, the surest mistakes first, at most ``shown``."""
    images = model.misread[:shown]
    columns = 8
    rows = max(1, -(-len(images) // columns))
    figure = _picture_grid(columns, rows, 1.28)
    figure.suptitle(
        f"What {model.name} misreads: {_of(len(images), len(model.misread))}, the surest mistakes first\n"
        "true digit → what it took it for, and how sure it was",
        fontsize=12,
    )
    for axes, image in zip(figure.axes, images, strict=False):
        axes.imshow(255 - np.array(image["pixels"]), cmap="gray", vmin=0, vmax=255)
        axes.set_title(
            f"{image['label']} → {image['predicted']}  {100 * image['probability']:.0f} %", loc="center", fontsize=9.5
        )
    return figure


@_styled
def augmented_digits(originals: Tensor, augmented: list[Tensor], name: str, recipe: Recipe) -> Figure:
    """Training digits on top, and below them what a model saw of them in as many epochs as there are rows.

    Args:
        originals: ``(N, 28, 28)`` uint8.
        augmented: rows of ``(N, 28, 28)`` float images in [0, 1].
    """
    bounds = recipe.augmentation
    figure = _picture_grid(len(originals), 1 + len(augmented), 0.77)
    changes = ["set upright"] if recipe.deslant else []
    changes += [
        f"{how} up to {bound:g}{unit}"
        for how, bound, unit in (
            ("turned", bounds.rotation_deg, "°"),
            ("shifted", bounds.shift_px, " px"),
            ("scaled", bounds.scale_percent, " %"),
        )
        if bound
    ]
    what = textwrap.fill(", ".join(changes), 56) or "unchanged: its recipe has no augmentation"
    figure.suptitle(f"Training digits (top row) and what {name} sees of them:\n{what}", fontsize=11)
    for row, images in enumerate([originals.float() / 255, *augmented]):
        for column, image in enumerate(images):
            figure.axes[row * len(originals) + column].imshow(1 - image.numpy(), cmap="gray", vmin=0, vmax=1)
    for row, label in enumerate(("original", "as seen")):
        axes = figure.axes[row * len(originals)]
        axes.text(-0.05, 0.5, label, transform=axes.transAxes, ha="right", va="center", rotation=90, fontsize=9)
    return figure


def _is_beside(model: Measured, other: Measured) -> bool:
    """Whether two models lie so close by parameters and accuracy that their labels would overlap."""
    fewer, more = sorted((model.metrics["parameters"], other.metrics["parameters"]))
    apart_points = abs(model.metrics["test_accuracy"] - other.metrics["test_accuracy"])
    return bool(more < 1.2 * fewer and apart_points < 0.25)


def _two_panels(title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left = figure.add_subplot(1, 2, 1)
    right = figure.add_subplot(1, 2, 2, sharex=left, sharey=left)
    figure.suptitle(title)
    right.tick_params(labelleft=False)
    for panel in (left, right):
        panel.set_xlabel("Epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, [left, right]


def _draw_curves(axes: Axes, models: list[Measured], column: str) -> None:
    for model in models:
        colour, marker, dash = model_style(model.name)
        axes.plot(
            model.history["epoch"],
            model.history[column],
            color=colour,
            linestyle=dash,
            marker=marker,
            markersize=4,
            linewidth=1.8,
            label=model.name,
        )
    figure = axes.figure
    if not figure.legends:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(models), 8))


def _picture_grid(columns: int, rows: int, inches: float) -> Figure:
    figure = Figure(figsize=(columns * inches * 0.85, rows * inches + 0.7), layout="constrained")
    for place in range(rows * columns):
        figure.add_subplot(rows, columns, place + 1).set_axis_off()
    return figure


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _of(shown: int, total: int) -> str:
    return f"all {total:,} test images" if shown == total else f"{shown} of {total:,} test images"
