"""Numbers to figures: each function draws one picture and returns it; ``save`` writes it.

Drawn without pyplot, so nothing here has global state. One colour, marker and dash a model, everywhere;
lightness differs too, so that the curves can be told apart in grey. Any number of models, with names of any
length, fits: headings and legends wrap, pictures grow, and labels make way for each other.
"""

import textwrap
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Line
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox
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
    # Boxes are measured at this resolution.
    "figure.dpi": 100,
    "savefig.dpi": 150,
    # Air around all, which a dark page shows.
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
}

_Point = tuple[float, float]


class _Place(NamedTuple):
    """A way to write a label: its text, so many points from a point in data, and how much worse it is than others."""

    words: str
    point: _Point
    offset: _Point
    align: Literal["left", "center", "right"]
    cost: float


class _Label(NamedTuple):
    """A label of a point, and its places, the first of equals; the colour of a line to it, if it may be far off."""

    text: Annotation
    point: _Point
    places: list[_Place]
    colour: str | None


class _Obstacle(NamedTuple):
    """What no label should cover, from corner to corner in data, and how bad it would be; ``pad`` is in points."""

    start: _Point
    end: _Point
    pad: float
    weight: float

    def box(self, axes: Axes) -> Bbox:
        corners = axes.transData.transform([self.start, self.end])
        return Bbox([corners.min(axis=0), corners.max(axis=0)]).padded(self.pad * _figure_of(axes).dpi / 72)


class _Spot(NamedTuple):
    """A place as it would be in the picture, in pixels; its cost is that of all but the other labels."""

    place: _Place
    box: Bbox
    leader: Line | None
    cost: float


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
    # Where the colours start again, as they do in DVC's charts, they go with other markers and dashes.
    shifted = place + 3 * (place // len(COLOURS))
    return COLOURS[place % len(COLOURS)], MARKERS[shifted % len(MARKERS)], _DASHES[shifted % len(_DASHES)]


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
    figure = Figure(figsize=(9, 5.2 + 0.3 * max(0, len(models) - 8)), layout="constrained")
    axes = figure.add_subplot()
    _head(figure, _who_reaches(models, params))
    _draw_field(axes, models, params)
    bottom = axes.get_ylim()[0]
    labels: list[_Label] = []
    obstacles: list[_Obstacle] = []
    for model in models:
        obstacles += _draw_model(axes, model)
        y = model.metrics["test_accuracy"]
        if y >= bottom:
            labels.append(_label_beside(axes, model))
        else:
            labels.append(_mark_below(axes, model.metrics["parameters"], "▾", f"{model.name} {y:.2f}"))
        brief = _brief_accuracy(params, model.name)
        if brief is not None and brief >= bottom:
            obstacles.append(_draw_brief(axes, model, brief))
        elif brief is not None:
            labels.append(_mark_below(axes, model.metrics["parameters"], "○", f"{brief:.2f}"))
    # The legend leaves room for what is written at the lower edge too.
    marks = [_Obstacle(label.point, label.point, 8, 0) for label in labels if label.colour is None]
    obstacles += _explain_markers(axes, [*obstacles, *marks])
    _settle(axes, labels, [*obstacles, *_target_lines(axes, params)])
    return figure


def _who_reaches(models: list[Measured], params: Params) -> str:
    reaching = [
        model.name
        for model in models
        if model.metrics["meets_accuracy_target"] and model.metrics["meets_parameters_target"]
    ]
    names = ", ".join([*reaching[:-2], " and ".join(reaching[-2:])])
    who = f"{names} reach{'es' if len(reaching) == 1 else ''}" if reaching else "No model reaches"
    targets = params.targets
    return f"{who} {targets.test_accuracy:g} % with fewer than {targets.parameters_below:,} parameters"


def _draw_field(axes: Axes, models: list[Measured], params: Params) -> None:
    """Scales, target lines and target corner of the picture of accuracy against parameters."""
    targets = params.targets
    shown = [targets.test_accuracy, *(bound for model in models for bound in model.interval)]
    # What lies far below should not flatten all the rest.
    bottom, top = max(min(shown) - 0.12, targets.test_accuracy - 2), min(100.0, max(shown) + 0.1)
    counts = [targets.parameters_below, *(model.metrics["parameters"] for model in models)]
    left, right = 0.8 * min(counts), 1.35 * max(counts)
    _draw_target(axes, targets.test_accuracy)
    axes.axvline(targets.parameters_below, color=_TARGET, linewidth=1.2, linestyle=":", zorder=1)
    corner_bottom = (targets.test_accuracy - bottom) / (top - bottom)
    axes.axvspan(left, targets.parameters_below, corner_bottom, 1, color="#009E73", alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    # In doublings, or where there are few in parts of them, as many as there is room for.
    doublings = [125 * 2**power for power in range(24)]
    ticks = [tick for tick in doublings if left <= tick <= right]
    if len(ticks) < 3:
        ticks = [tick * part // 4 for tick in doublings for part in (4, 5, 6, 7) if left <= tick * part / 4 <= right]
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: 1 + len(ticks) // 9]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("Parameters (logarithmic)")
    axes.set_ylabel("Test accuracy (%)")


def _draw_model(axes: Axes, model: Measured) -> list[_Obstacle]:
    x, y, (low, high) = model.metrics["parameters"], model.metrics["test_accuracy"], model.interval
    colour, marker, _ = model_style(model.name)
    axes.errorbar(x, y, [[max(0, y - low)], [max(0, high - y)]], color=colour, marker=marker, markersize=9, capsize=4)
    return [_Obstacle((x, y), (x, y), 5, 20), _Obstacle((x, low), (x, high), 4, 12)]


def _draw_brief(axes: Axes, model: Measured, accuracy: float) -> _Obstacle:
    """The brief's figure of a model, hollow."""
    point = model.metrics["parameters"], accuracy
    colour, marker, _ = model_style(model.name)
    axes.plot(*point, marker=marker, markersize=8, markerfacecolor="white", markeredgecolor=colour, linestyle="none")
    return _Obstacle(point, point, 5, 10)


def _brief_accuracy(params: Params, name: str) -> float | None:
    step = params.report.story.get(name)
    return step.brief_test_accuracy if step else None


def _explain_markers(axes: Axes, obstacles: list[_Obstacle]) -> list[_Obstacle]:
    """A legend in a lower corner, or below the picture where both are taken; what it covers is returned."""
    filled = axes.errorbar([], [], [[], []], color=_TARGET, marker="o", linestyle="none", capsize=4)
    hollow = axes.plot([], [], color=_TARGET, marker="o", markerfacecolor="white", linestyle="none")[0]
    handles: list[Any] = [filled, hollow]
    names = ["last epoch, 95 % interval over test images", "the brief: best epoch of one run"]
    corners: tuple[Literal["lower right", "lower left"], ...] = ("lower right", "lower left")
    _figure_of(axes).draw_without_rendering()
    for corner in corners:
        legend = axes.legend(handles, names, loc=corner)
        box = legend.get_window_extent()
        if not any(box.overlaps(obstacle.box(axes)) for obstacle in obstacles):
            (left, bottom), (right, top) = axes.transData.inverted().transform(box)
            return [_Obstacle((left, bottom), (right, top), 0, 50)]
        legend.remove()
    _legend_below(_figure_of(axes), handles, names)
    return []


def _target_lines(axes: Axes, params: Params) -> list[_Obstacle]:
    """The lines at the targets: a label across one can be read, but is better off beside it."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    accuracy, parameters = params.targets.test_accuracy, params.targets.parameters_below
    across, up = (left, accuracy), (parameters, bottom)
    return [_Obstacle(across, (right, accuracy), 0.5, 1), _Obstacle(up, (parameters, top), 0.5, 1)]


@_styled
def accuracy_over_seeds(
    own: dict[str, list[float]], equal: dict[str, list[float]], sizes: dict[str, int], params: Params, equal_recipe: str
) -> Figure:
    """Test accuracy of every seed with its mean, the target, and the brief's figures.

    Args:
        own, equal: in percent, by model, of its own recipe and, where it was trained so too, of ``equal_recipe``'s.
        sizes: parameters by model.
    """
    names = [f"{_in_lines(name)}\n{sizes[name]:,}" for name in own]
    room = max(1.05, 0.15 + max(_inches(line) for name in names for line in name.split("\n")))
    height = 5.6 + 0.18 * (max(name.count("\n") for name in names) - 1)
    figure = Figure(figsize=(max(10, 1.35 + room * (len(own) + 0.2)), height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False, axis="x")
    best = max(own, key=lambda name: np.mean(own[name]))
    _head(
        figure,
        f"{best} averages {np.mean(own[best]):.2f} % over {len(own[best])} seeds, the lowest {min(own[best]):.2f} %",
    )
    target = params.targets.test_accuracy
    # A seed that went astray should not flatten all the rest.
    shown = [value for values in (*own.values(), *equal.values()) for value in values if value > target - 2] + [target]
    axes.set_ylim(min(shown) - 0.12, min(100.0, max(shown) + 0.08))
    axes.set_xlim(-0.6, len(own) - 0.4)
    labels: list[_Label] = []
    obstacles: list[_Obstacle] = []
    for place, name in enumerate(own):
        kinds = [(own[name], True), (equal[name], False)] if name in equal else [(own[name], True)]
        for (values, filled), aside in zip(kinds, (-0.19, 0.19) if len(kinds) > 1 else (0.0,), strict=True):
            obstacles += _draw_seeds(axes, place + aside, values, name, filled)
            labels += _mark_astray(axes, place + aside - 0.1, values)
        brief = _brief_accuracy(params, name)
        if brief is not None and brief >= axes.get_ylim()[0]:
            axes.plot(place - 0.43, brief, "x", color=_TARGET, markersize=7)
            obstacles.append(_Obstacle((place - 0.43, brief), (place - 0.43, brief), 4, 8))
        elif brief is not None:
            labels.append(_mark_below(axes, place - 0.46, "×", f"{brief:.2f}"))
    _draw_target(axes, target)
    axes.set_xticks(range(len(own)), names)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("Model and its parameters")
    axes.set_ylabel("Test accuracy after the last epoch (%)")
    _explain_seeds(axes, equal_recipe)
    _settle(axes, labels, obstacles)
    return figure


def _draw_seeds(axes: Axes, middle: float, values: list[float], name: str, filled: bool) -> list[_Obstacle]:
    """The seeds of one recipe and their mean."""
    colour, marker, _ = model_style(name)
    face = colour if filled else "white"
    # Side by side in the order of the seeds: nothing hides behind another.
    across = middle + np.linspace(-0.1, 0.1, len(values))
    axes.plot(across, values, marker, color=colour, markerfacecolor=face, markersize=6, alpha=0.9, linestyle="none")
    axes.hlines(np.mean(values), middle - 0.17, middle + 0.17, color="black", linewidth=1.6, zorder=3)
    return [_Obstacle((x, value), (x, value), 4, 8) for x, value in zip(across, values, strict=True)]


def _mark_astray(axes: Axes, x: float, values: list[float]) -> list[_Label]:
    """Write which of a recipe's seeds lie below the picture, if any."""
    below = [value for value in values if value < axes.get_ylim()[0]]
    many = f"{len(below)} seeds, " if below[1:] else ""
    return [_mark_below(axes, x, "▾", f"{many}{min(below):.2f}, mean {np.mean(values):.2f}")] if below else []


def _explain_seeds(axes: Axes, equal_recipe: str) -> None:
    axes.plot([], [], "o", color=_TARGET, label="a seed, own recipe")
    axes.plot([], [], "o", color=_TARGET, markerfacecolor="white", label=f"a seed, {equal_recipe}'s recipe")
    axes.plot([], [], color="black", linewidth=1.6, label="mean")
    axes.plot([], [], "x", color=_TARGET, label="the brief: best epoch of one run")
    _legend_below(_figure_of(axes), *axes.get_legend_handles_labels())


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
    _head(figure, title, 12)
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
    _head(
        figure,
        f"What {model.name} misreads: {_of(len(images), len(model.misread))}, the surest mistakes first\n"
        "true digit → what it took it for, and how sure it was",
        12,
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
    what = ", ".join(changes) or "unchanged: its recipe has no augmentation"
    _head(figure, f"Training digits (top row) and what {name} sees of them:\n{what}", 11)
    for row, images in enumerate([originals.float() / 255, *augmented]):
        for column, image in enumerate(images):
            figure.axes[row * len(originals) + column].imshow(1 - image.numpy(), cmap="gray", vmin=0, vmax=1)
    for row, label in enumerate(("original", "as seen")):
        axes = figure.axes[row * len(originals)]
        axes.text(-0.05, 0.5, label, transform=axes.transAxes, ha="right", va="center", rotation=90, fontsize=9)
    return figure


def _label_beside(axes: Axes, model: Measured) -> _Label:
    """A model's name and accuracy, beside its point or its interval's ends or, with a line to it, farther off."""
    x, y, (low, high) = model.metrics["parameters"], model.metrics["test_accuracy"], model.interval
    words = f"{model.name}\n{y:.2f} %"
    places = [_Place(words, (x, high), (0, 18), "center", 3), _Place(words, (x, low), (0, -18), "center", 3.5)]
    for right in (12, 30, 60, 100):
        for up in range(-112, 113, 16):
            cost = right / 12 + abs(up) / 8
            places.append(_Place(words, (x, y), (right, up), "left", cost))
            places.append(_Place(words, (x, y), (-right, up), "right", cost + 0.5))
    places.sort(key=lambda place: place.cost)
    return _Label(_written(axes, 11, "black", "center"), (x, y), places, model_style(model.name)[0])


def _mark_below(axes: Axes, x: float, sign: str, words: str) -> _Label:
    """Write what lies below the picture at its lower edge, in the first row that is free, with a sign at its place."""
    point = x, axes.get_ylim()[0]
    rows = range(12)
    places = [_Place(f"{sign} {words}", point, (-4, 3 + 13 * row), "left", row) for row in rows]
    places += [_Place(f"{words} {sign}", point, (4, 3 + 13 * row), "right", row + 2) for row in rows]
    return _Label(_written(axes, 9, _TARGET, "baseline"), point, places, None)


def _written(axes: Axes, size: float, colour: str, align: Literal["center", "baseline"]) -> Annotation:
    """An annotation that has no words nor place yet."""
    annotation = axes.annotate(
        "",
        (0, 0),
        (0, 0),
        textcoords="offset points",
        fontsize=size,
        color=colour,
        va=align,
        annotation_clip=False,
        # A line may pass behind it.
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )
    # It will lie within the frame, and so needs no room beside it.
    annotation.set_in_layout(False)
    return annotation


def _settle(axes: Axes, labels: list[_Label], obstacles: list[_Obstacle]) -> None:
    """Put each label where it collides least, given the others; in a few rounds, for later ones may move earlier."""
    _figure_of(axes).draw_without_rendering()  # Boxes are known once the layout is.
    taken = [(obstacle.box(axes), obstacle.weight) for obstacle in obstacles]
    choices = [
        sorted((_spot(axes, label, place, taken) for place in label.places), key=lambda spot: spot.cost)
        for label in labels
    ]
    chosen = [spots[0] for spots in choices]
    for _ in range(4):
        for own, spots in enumerate(choices):
            chosen[own] = _best(spots, chosen[:own] + chosen[own + 1 :])
    for label, spot in zip(labels, chosen, strict=True):
        _put(label.text, spot.place)
        if label.colour and spot.leader:
            line = {"arrowstyle": "-", "color": label.colour, "linewidth": 1, "shrinkA": 0, "shrinkB": 5}
            axes.annotate("", label.point, spot.place.offset, textcoords="offset points", arrowprops=line)


def _best(spots: list[_Spot], others: list[_Spot]) -> _Spot:
    """Of spots, the cheapest first, the one that with what it collides with costs least."""
    best, least = spots[0], float("inf")
    for spot in spots:
        if spot.cost >= least:
            break
        cost = spot.cost + sum(_clash(spot, other) for other in others)
        if cost < least:
            best, least = spot, cost
    return best


def _spot(axes: Axes, label: _Label, place: _Place, taken: list[tuple[Bbox, float]]) -> _Spot:
    """Where a label would be at a place, and how much it would cover there."""
    _put(label.text, place)
    box = label.text.get_window_extent()
    x, y = place.offset
    leader = None
    if label.colour and place.point == label.point and (abs(x) > 12 or abs(y) > 16):
        point = axes.transData.transform(label.point)
        leader = Line([point, point + np.array(place.offset) * _figure_of(axes).dpi / 72])
    frame = axes.bbox
    outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
    covered = sum(weight for other, weight in taken if box.overlaps(other))
    # Its own point and interval are among those that a leader meets; so they are for each place.
    met = sum(weight / 4 for other, weight in taken if leader and leader.intersects_bbox(other, filled=False))
    return _Spot(place, box, leader, place.cost + 1000 * outside + covered + met)


def _clash(spot: _Spot, other: _Spot) -> float:
    """How much two labels with their leaders are in each other's way."""
    pairs = ((spot.leader, other.box), (other.leader, spot.box))
    crossed = sum(bool(leader and leader.intersects_bbox(box)) for leader, box in pairs)
    tangled = bool(spot.leader and other.leader and spot.leader.intersects_path(other.leader))
    return 100 * spot.box.padded(1).overlaps(other.box) + 20 * crossed + 5 * tangled


def _put(text: Annotation, place: _Place) -> None:
    text.set_text(place.words)
    text.xy = place.point
    text.set_position(place.offset)
    text.set_horizontalalignment(place.align)


def _two_panels(title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left = figure.add_subplot(1, 2, 1)
    right = figure.add_subplot(1, 2, 2, sharex=left, sharey=left)
    _head(figure, title)
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
    figure = _figure_of(axes)
    if not figure.legends:
        _legend_below(figure, *axes.get_legend_handles_labels())


def _figure_of(axes: Axes) -> Figure:
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure


def _head(figure: Figure, text: str, size: float = 13) -> None:
    """A heading, in as many lines as fit; the picture grows by those that it was not written in."""
    given = text.split("\n")
    lines = [line for part in given for line in _wrapped(part, figure.get_figwidth() - 0.2, size)]
    figure.set_figheight(figure.get_figheight() + (len(lines) - len(given)) * size / 60)
    figure.suptitle("\n".join(lines), fontsize=size)


def _wrapped(text: str, inches: float, size: float) -> list[str]:
    """Bold text in as few lines as fit, of about equal length."""
    # No number is parted from its unit.
    words = text.replace(" %", "\N{NO-BREAK SPACE}%").replace(" px", "\N{NO-BREAK SPACE}px")
    lines = [words]
    for width in range(len(words), 0, -1):
        broken = textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False)
        if len(broken) > len(lines) and all(_inches(line, size, "bold") <= inches for line in lines):
            break
        lines = broken
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _in_lines(name: str) -> str:
    """A model's name, a long one in several lines."""
    return "\n".join(line.replace(" ", "") for line in textwrap.wrap(name.replace("_", "_ "), 12))


def _inches(text: str, size: float = 11, weight: str = "normal") -> float:
    """Width of a line of text."""
    return float(TextPath((0, 0), text, size=size, prop=FontProperties(weight=weight)).get_extents().width) / 72


def _legend_below(figure: Figure, handles: list[Any], names: list[str]) -> None:
    """A legend below all, in as many rows as it needs; the picture grows by those beyond the first."""
    for columns in range(len(names), 0, -1):
        # They are filled one by one, but read row by row.
        order = [place for column in range(columns) for place in range(column, len(names), columns)]
        legend = figure.legend(
            [handles[place] for place in order],
            [names[place] for place in order],
            loc="outside lower center",
            ncols=columns,
        )
        rows = -(-len(names) // columns)
        # As few columns as the rows need, so that the last is not nearly empty.
        if -(-len(names) // rows) == columns and (
            columns == 1 or legend.get_window_extent().width < 0.98 * figure.bbox.width
        ):
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + 0.24 * (rows - 1))


def _picture_grid(columns: int, rows: int, inches: float) -> Figure:
    # However few the pictures are, there is room for the heading.
    figure = Figure(figsize=(max(5.2, columns * inches * 0.85), rows * inches + 0.7), layout="constrained")
    for place in range(rows * columns):
        figure.add_subplot(rows, columns, place + 1).set_axis_off()
    return figure


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _of(shown: int, total: int) -> str:
    return f"all {total:,} test images" if shown == total else f"{shown} of {total:,} test images"
