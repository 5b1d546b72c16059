"""Test accuracy against parameters."""

from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mnist_cnn.report.figures.labels import Label, Obstacle, label_beside, mark_below, settle
from mnist_cnn.report.figures.style import (
    NEUTRAL,
    draw_target,
    figure_of,
    model_style,
    reference_accuracy,
    set_heading,
    set_legend_below,
    styled,
)
from mnist_cnn.report.results import ModelResult
from mnist_cnn.settings.params import Params


@styled
def accuracy_against_parameters(models: list[ModelResult], params: Params) -> Figure:
    """Test accuracy with its interval against parameters, the reference figures and the target lines."""
    figure = Figure(figsize=(9, 5.2 + 0.3 * max(0, len(models) - 8)), layout="constrained")
    axes = figure.add_subplot()
    set_heading(figure, _who_reaches(models, params))
    _draw_field(axes, models, params)
    bottom = axes.get_ylim()[0]
    labels: list[Label] = []
    obstacles: list[Obstacle] = []
    for model in models:
        obstacles += _draw_model(axes, model)
        y = model.metrics.test_accuracy
        if y >= bottom:
            labels.append(label_beside(axes, model))
        else:
            labels.append(mark_below(axes, model.metrics.parameters, "▾", f"{model.name} {y:.2f}"))
        reference = reference_accuracy(params, model.name)
        if reference is not None and reference >= bottom:
            obstacles.append(_draw_reference(axes, model, reference))
        elif reference is not None:
            labels.append(mark_below(axes, model.metrics.parameters, "○", f"{reference:.2f}"))
    # The legend leaves room for what is written at the lower edge too.
    marks = [Obstacle(label.point, label.point, 8, 0) for label in labels if label.colour is None]
    obstacles += _explain_markers(axes, [*obstacles, *marks])
    settle(axes, labels, [*obstacles, *_target_lines(axes, params)])
    return figure


def _who_reaches(models: list[ModelResult], params: Params) -> str:
    reaching = [
        model.name for model in models if model.metrics.meets_accuracy_target and model.metrics.meets_parameters_target
    ]
    names = ", ".join([*reaching[:-2], " and ".join(reaching[-2:])])
    who = f"{names} reach{'es' if len(reaching) == 1 else ''}" if reaching else "No model reaches"
    targets = params.targets
    return f"{who} {targets.test_accuracy:g} % with fewer than {targets.parameters_below:,} parameters"


def _draw_field(axes: Axes, models: list[ModelResult], params: Params) -> None:
    """Scales, target lines and target corner of the picture of accuracy against parameters."""
    targets = params.targets
    shown = [targets.test_accuracy, *(bound for model in models for bound in model.interval)]
    # What lies far below should not flatten all the rest.
    bottom, top = max(min(shown) - 0.12, targets.test_accuracy - 2), min(100.0, max(shown) + 0.1)
    counts = [targets.parameters_below, *(model.metrics.parameters for model in models)]
    left, right = 0.8 * min(counts), 1.35 * max(counts)
    draw_target(axes, targets.test_accuracy)
    axes.axvline(targets.parameters_below, color=NEUTRAL, linewidth=1.2, linestyle=":", zorder=1)
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


def _draw_model(axes: Axes, model: ModelResult) -> list[Obstacle]:
    x, y, (low, high) = model.metrics.parameters, model.metrics.test_accuracy, model.interval
    colour, marker, _ = model_style(model.name)
    axes.errorbar(x, y, [[max(0, y - low)], [max(0, high - y)]], color=colour, marker=marker, markersize=9, capsize=4)
    return [Obstacle((x, y), (x, y), 5, 20), Obstacle((x, low), (x, high), 4, 12)]


def _draw_reference(axes: Axes, model: ModelResult, accuracy: float) -> Obstacle:
    """The reference figure of a model, hollow."""
    point = model.metrics.parameters, accuracy
    colour, marker, _ = model_style(model.name)
    axes.plot(*point, marker=marker, markersize=8, markerfacecolor="white", markeredgecolor=colour, linestyle="none")
    return Obstacle(point, point, 5, 10)


def _explain_markers(axes: Axes, obstacles: list[Obstacle]) -> list[Obstacle]:
    """A legend in a lower corner, or below the picture where both are taken; what it covers is returned."""
    filled = axes.errorbar([], [], [[], []], color=NEUTRAL, marker="o", linestyle="none", capsize=4)
    hollow = axes.plot([], [], color=NEUTRAL, marker="o", markerfacecolor="white", linestyle="none")[0]
    handles: list[Any] = [filled, hollow]
    names = ["last epoch, 95 % interval over test images", "reference: best epoch of one run"]
    corners: tuple[Literal["lower right", "lower left"], ...] = ("lower right", "lower left")
    figure_of(axes).draw_without_rendering()
    for corner in corners:
        legend = axes.legend(handles, names, loc=corner)
        box = legend.get_window_extent()
        if not any(box.overlaps(obstacle.box(axes)) for obstacle in obstacles):
            (left, bottom), (right, top) = axes.transData.inverted().transform(box)
            return [Obstacle((left, bottom), (right, top), 0, 50)]
        legend.remove()
    set_legend_below(figure_of(axes), handles, names)
    return []


def _target_lines(axes: Axes, params: Params) -> list[Obstacle]:
    """The lines at the targets: a label across one can be read, but is better off beside it."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    accuracy, parameters = params.targets.test_accuracy, params.targets.parameters_below
    across, up = (left, accuracy), (parameters, bottom)
    return [Obstacle(across, (right, accuracy), 0.5, 1), Obstacle(up, (parameters, top), 0.5, 1)]
