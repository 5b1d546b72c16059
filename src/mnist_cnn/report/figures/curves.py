"""Accuracy and loss by epoch."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from mnist_cnn.report.figures.style import draw_target, figure_of, model_style, set_heading, set_legend_below, styled
from mnist_cnn.report.results import ModelResult
from mnist_cnn.settings.params import Params


@styled
def accuracy_curves(models: list[ModelResult], params: Params) -> Figure:
    """Training and validation accuracy by epoch, in two panels on one scale."""
    best = max(models, key=lambda model: model.history["val_accuracy"].iloc[-1])
    title = f"{best.name} ends highest on validation, at {best.history['val_accuracy'].iloc[-1]:.2f} %"
    figure, panels = _panels_by_split(title, models, "accuracy")
    target = params.targets.test_accuracy
    draw_target(panels[0], target, labelled=False)
    draw_target(panels[1], target)
    # Without the first fifth of the run, which may lie so low that it would flatten all the rest.
    lowest = min(float(model.history["val_accuracy"].iloc[len(model.history) // 5 :].min()) for model in models)
    highest = max(float(model.history[["train_accuracy", "val_accuracy"]].to_numpy().max()) for model in models)
    panels[0].set_ylim(max(0.0, np.floor(min(lowest, 99.0))), min(100.0, max(highest, target) + 0.1))
    panels[0].set_ylabel("Accuracy (%)")
    return figure


@styled
def loss_curves(models: list[ModelResult]) -> Figure:
    """Training and validation loss by epoch, in two panels on one logarithmic scale."""
    best = min(models, key=lambda model: model.history["val_loss"].iloc[-1])
    title = f"{best.name} ends lowest on validation, at a loss of {best.history['val_loss'].iloc[-1]:.3f}"
    figure, panels = _panels_by_split(title, models, "loss")
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]))
    panels[0].yaxis.set_minor_locator(NullLocator())
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panels[0].set_ylabel("Cross-entropy (nats)")
    return figure


def _panels_by_split(title: str, models: list[ModelResult], kind: str) -> tuple[Figure, list[Axes]]:
    """The curves of a kind, training to the left of validation, on one scale."""
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left = figure.add_subplot(1, 2, 1)
    right = figure.add_subplot(1, 2, 2, sharex=left, sharey=left)
    set_heading(figure, title)
    right.tick_params(labelleft=False)
    for panel, split, name in ((left, "train", "Training, as trained on"), (right, "val", "Validation")):
        _draw_curves(panel, models, f"{split}_{kind}")
        panel.set_title(name)
        panel.set_xlabel("Epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, [left, right]


def _draw_curves(axes: Axes, models: list[ModelResult], column: str) -> None:
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
    figure = figure_of(axes)
    if not figure.legends:
        set_legend_below(figure, *axes.get_legend_handles_labels())
