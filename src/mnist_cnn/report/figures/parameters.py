"""Test accuracy against parameters."""

from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mnist_cnn.report.figures.claims import Interval, listed, validation_images, validation_interval
from mnist_cnn.report.figures.labels import Label, Obstacle, label_beside, mark_below, settle, spread
from mnist_cnn.report.figures.style import (
    NEUTRAL,
    REFERENCE,
    WIDTH,
    draw_target,
    figure_of,
    model_style,
    reference_accuracy,
    set_heading,
    set_legend_below,
    styled,
)
from mnist_cnn.report.results import ModelResult
from mnist_cnn.settings.datasets import DataSet
from mnist_cnn.settings.params import Targets
from mnist_cnn.settings.story import Story

_MET = "#009E73"
# Points between models that have nearly as many parameters.
_APART = 8


class _Shown(NamedTuple):
    """What is drawn of a model: accuracy in percent with its interval, of test or validation images, and where."""

    name: str
    parameters: int
    x: float
    tested: bool
    accuracy: float
    interval: Interval
    images: int
    reference: float | None

    @property
    def point(self) -> tuple[float, float]:
        return self.x, self.accuracy


@styled
def accuracy_against_parameters(models: list[ModelResult], targets: Targets, story: Story, data: DataSet) -> Figure:
    """Accuracy with its interval against parameters, the reference figures and the target lines.

    Accuracy is that on the test set; of a model that was not looked at there, on validation, drawn hollow.
    """
    shown = [_shown(model, reference_accuracy(story, model.name)) for model in models]
    figure = Figure(figsize=(WIDTH, 4.6 + 0.25 * max(0, len(models) - 8)), layout="constrained")
    axes = figure.add_subplot()
    _draw_field(axes, shown, targets)
    shown = _apart(axes, shown, targets.parameters_below)
    set_heading(figure, _title(shown, targets), note=f"{data.title}. {_note(shown)}")
    bottom = axes.get_ylim()[0]
    labels: list[Label] = []
    obstacles: list[Obstacle] = []
    for model in shown:
        obstacles += _draw_model(axes, model)
        if model.accuracy >= bottom:
            words = f"{model.name}\n{model.accuracy:.2f} %"
            labels.append(label_beside(axes, words, model.point, model.interval, model_style(model.name)[0]))
        else:
            labels.append(mark_below(axes, model.x, "▾", f"{model.name} {model.accuracy:.2f}"))
        if model.reference is None:
            continue
        if model.reference >= bottom:
            obstacles.append(_draw_reference(axes, model, model.reference))
        else:
            labels.append(mark_below(axes, model.x, "×", f"{model.reference:.2f}"))
    _explain_markers(axes, shown)
    settle(axes, labels, [*obstacles, *_target_lines(axes, targets)])
    return figure


def _shown(model: ModelResult, reference: float | None) -> _Shown:
    if model.test:
        measured = True, model.test.accuracy, model.test.interval, model.test.images
    else:
        measured = False, model.metrics.val_accuracy, validation_interval(model), validation_images(model)
    parameters = model.metrics.parameters
    return _Shown(model.name, parameters, parameters, *measured, reference)


def _apart(axes: Axes, shown: list[_Shown], limit: int) -> list[_Shown]:
    """The models where they can be told apart, each on its side of the limit; most of them where they belong."""
    figure_of(axes).draw_without_rendering()
    pixel = figure_of(axes).dpi / 72
    limit_at = axes.transData.transform((limit, 1))[0]
    moved = {}
    for bounds, side in (
        ((axes.bbox.x0, limit_at - 3 * pixel), [model for model in shown if model.parameters < limit]),
        ((limit_at, axes.bbox.x1), [model for model in shown if model.parameters >= limit]),
    ):
        wanted = [float(axes.transData.transform((model.parameters, 1))[0]) for model in side]
        for model, own, x in zip(side, wanted, spread(wanted, _APART * pixel, *bounds), strict=True):
            if abs(x - own) > 0.1:
                moved[model.name] = float(axes.transData.inverted().transform((x, 0))[0])
    return [model._replace(x=moved.get(model.name, model.x)) for model in shown]


def _split(shown: list[_Shown]) -> str:
    return "Accuracy" if len({model.tested for model in shown}) > 1 else f"{_kind(shown[0]).capitalize()} accuracy"


def _kind(model: _Shown) -> str:
    return "test" if model.tested else "validation"


def _title(shown: list[_Shown], targets: Targets) -> str:
    reaching = [
        model.name
        for model in shown
        if model.tested and model.interval[0] >= targets.test_accuracy and model.parameters < targets.parameters_below
    ]
    if not reaching:
        return f"{_split(shown)} against parameters"
    has, whole = ("have", "their whole 95 % intervals") if reaching[1:] else ("has", "its whole 95 % interval")
    return (
        f"{listed(reaching)} {has} fewer than {targets.parameters_below:,} parameters and {whole} "
        f"above {targets.test_accuracy:g} %"
    )


def _note(shown: list[_Shown]) -> str:
    images = {_kind(model): f"{model.images:,} {_kind(model)} images" for model in shown}
    hollow = " Hollow: no look at the test set." if "validation" in images else ""
    moved = " Points that would hide others stand beside them." if any(one.x != one.parameters for one in shown) else ""
    return f"One seed a model, last epoch. Bars are 95 % intervals over {' or '.join(images.values())}.{hollow}{moved}"


def _draw_field(axes: Axes, shown: list[_Shown], targets: Targets) -> None:
    """Scales, and the targets with the field where both are met; that of the test set only where some were tested."""
    tested = any(model.tested for model in shown)
    wanted = [targets.test_accuracy] if tested else []
    inside = [*wanted, *(bound for model in shown for bound in model.interval)]
    # What lies far below should not flatten all the rest.
    bottom = min(bound for bound in inside if bound > max(inside) - 2.5) - 0.12
    top = min(100.0, max(inside) + 0.1)
    counts = [targets.parameters_below, *(model.parameters for model in shown)]
    left, right = 0.8 * min(counts), 1.35 * max(counts)
    axes.axvline(targets.parameters_below, color=NEUTRAL, linewidth=1.2, linestyle=":", zorder=1)
    if tested:
        # A target far below is not in the picture, and all of that is above it.
        height = max(0.0, (targets.test_accuracy - bottom) / (top - bottom))
        if height:
            draw_target(axes, targets.test_accuracy)
        axes.axvspan(left, targets.parameters_below, height, 1, color=_MET, alpha=0.12, linewidth=0)
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
    axes.set_ylabel(f"{_split(shown)} (%)")


def _draw_model(axes: Axes, model: _Shown) -> list[Obstacle]:
    (x, y), (low, high) = model.point, model.interval
    colour, marker, _ = model_style(model.name)
    axes.errorbar(
        x, y, [[max(0, y - low)], [max(0, high - y)]], color=colour, marker=marker, markersize=7.5, capsize=3,
        markerfacecolor=colour if model.tested else "white", elinewidth=1.3,
    )  # fmt: skip
    return [Obstacle((x, y), (x, y), 5, 20), Obstacle((x, low), (x, high), 4, 12)]


def _draw_reference(axes: Axes, model: _Shown, accuracy: float) -> Obstacle:
    """The reference figure of a model: a cross."""
    point = model.x, accuracy
    axes.plot(*point, color=model_style(model.name)[0], **REFERENCE)
    return Obstacle(point, point, 5, 10)


def _explain_markers(axes: Axes, shown: list[_Shown]) -> None:
    handles: list[Any] = []
    names: list[str] = []
    for tested in (True, False):
        if any(model.tested == tested for model in shown):
            face = NEUTRAL if tested else "white"
            handles.append(
                axes.errorbar([], [], [[], []], color=NEUTRAL, marker="o", markerfacecolor=face, linestyle="none")
            )
            names.append("test set" if tested else "validation")
    if any(model.reference is not None for model in shown):
        handles.append(axes.plot([], [], color=NEUTRAL, **REFERENCE)[0])
        names.append("reference: one run's best epoch")
    if any(model.tested for model in shown):
        handles.append(axes.fill_between([], [], color=_MET, alpha=0.12, linewidth=0))
        names.append("both targets, on the test set")
    set_legend_below(figure_of(axes), handles, names)


def _target_lines(axes: Axes, targets: Targets) -> list[Obstacle]:
    """The lines at the targets: a label across one can be read, but is better off beside it."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    accuracy, parameters = targets.test_accuracy, targets.parameters_below
    across, up = (left, accuracy), (parameters, bottom)
    lines = [Obstacle(up, (parameters, top), 0.5, 3)]
    return [Obstacle(across, (right, accuracy), 0.5, 3), *lines] if accuracy > bottom else lines
