"""Accuracy and loss by epoch."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mnist_cnn.report.figures.claims import leader, validation_images, validation_interval
from mnist_cnn.report.figures.labels import LINE, End, label_ends
from mnist_cnn.report.figures.style import WIDTH, inches_of, model_style, set_heading, styled
from mnist_cnn.report.results import ModelResult
from mnist_cnn.settings.datasets import DataSet

# Percent. Errors of so little and less are drawn as so much: the logarithm of none is infinite.
_LEAST_ERROR = 0.01
# Epochs from tick to tick.
_STEPS = [part * 10**power for power in range(9) for part in (1, 2, 5)]
_SPLITS = {"train": "Training", "val": "Validation"}
_MEASURED = (
    "Training: the mean over an epoch's own batches, as trained on. Validation: the weights at its end. "
    "Each panel has its own scale, logarithmic in the"
)


@styled
def accuracy_curves(models: list[ModelResult], data: DataSet) -> Figure:
    """Training and validation accuracy by epoch; the scales are logarithmic in the error."""
    highest = leader({model.name: validation_interval(model) for model in models})
    title = f"{highest} ends highest on validation" if highest else "Accuracy by epoch"
    figure, panels = _frame(models, title, f"{data.title}. {_MEASURED} error. {_on_interval(models)}", "Accuracy (%)")
    for panel, split in zip(panels, _SPLITS, strict=True):
        column = f"{split}_accuracy"
        panel.set_yscale("function", functions=(_height, _accuracy))
        least, most = _bounds(np.maximum(_LEAST_ERROR, 100 - _all(models, column)))
        panel.set_ylim(100 - most, 100 - least)
        _mark(panel, [100 - tick for tick in _ticks(least, most)])
        _draw(panel, models, column)
    label_ends([(panel, _ends(models, f"{split}_accuracy", 2)) for panel, split in zip(panels, _SPLITS, strict=True)])
    return figure


@styled
def loss_curves(models: list[ModelResult], data: DataSet) -> Figure:
    """Training and validation loss by epoch, on logarithmic scales."""
    figure, panels = _frame(models, "Loss by epoch", f"{data.title}. {_MEASURED} loss.", "Cross-entropy (nats)")
    for panel, split in zip(panels, _SPLITS, strict=True):
        column = f"{split}_loss"
        panel.set_yscale("log")
        least, most = _bounds(_all(models, column))
        panel.set_ylim(least, most)
        _mark(panel, _ticks(least, most))
        _draw(panel, models, column)
    label_ends([(panel, _ends(models, f"{split}_loss", 4)) for panel, split in zip(panels, _SPLITS, strict=True)])
    return figure


def _frame(models: list[ModelResult], title: str, note: str, label: str) -> tuple[Figure, list[Axes]]:
    """Two panels, training's and validation's, side by side, or one below the other where names are long."""
    longest = max(inches_of(model.name) for model in models)
    beside = longest < 1
    height = 1 + max(2.7, (len(models) + 1) * LINE / 72)
    figure = Figure(figsize=(WIDTH, max(4.6, height) if beside else 2 * height), layout="constrained")
    set_heading(figure, title, note=note)
    panels = figure.subplots(1, 2) if beside else figure.subplots(2, 1)
    last = max(int(model.history["epoch"].iloc[-1]) for model in models)
    for panel, name in zip(panels, _SPLITS.values(), strict=True):
        panel.set_title(name)
        panel.set_xlabel("Epoch")
        panel.set_xlim((1, last) if last > 1 else (0.5, 1.5))
        step = next(step for step in _STEPS if last <= 5 * step)
        between = [epoch for epoch in range(0, last, step) if min(epoch - 1, last - epoch) > step / 2]
        panel.set_xticks(sorted({1, *between, last}))
    for panel in panels[:1] if beside else panels:
        panel.set_ylabel(label)
    return figure, list(panels)


def _mark(axes: Axes, ticks: list[float]) -> None:
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def _draw(axes: Axes, models: list[ModelResult], column: str) -> None:
    for place, model in enumerate(models):
        colour, marker, dash = model_style(model.name)
        epochs = model.history["epoch"]
        # Where lines coincide, their markers stand side by side.
        step = 1 + (len(epochs) - 1) // 5
        axes.plot(
            epochs, model.history[column], color=colour, linestyle=dash, marker=marker, markersize=4, linewidth=1.3,
            label=model.name, markevery=(place % step, step), clip_on=False,
        )  # fmt: skip


def _ends(models: list[ModelResult], column: str, decimals: int) -> list[End]:
    ends = []
    for model in models:
        last = model.history.iloc[-1]
        ends.append(End(model.name, f"{model.name}  {last[column]:.{decimals}f}", (last["epoch"], last[column])))
    return ends


def _height(accuracy: np.ndarray) -> np.ndarray:
    height: np.ndarray = -np.log10(np.maximum(_LEAST_ERROR, 100 - np.asarray(accuracy)))
    return height


def _accuracy(height: np.ndarray) -> np.ndarray:
    accuracy: np.ndarray = 100 - np.power(10, -np.asarray(height))
    return accuracy


def _all(models: list[ModelResult], column: str) -> np.ndarray:
    return np.concatenate([model.history[column].to_numpy(float) for model in models])


def _bounds(values: np.ndarray) -> tuple[float, float]:
    """What a logarithmic scale should show: with some air above and below, and no less than a factor of 3."""
    least, most = float(values.min()), float(values.max())
    air = max(1.12, (3 * least / most) ** 0.5)
    return least / air, most * air


def _ticks(least: float, most: float) -> list[float]:
    """Round values in a range; where it is wide, the fewer of them the higher they are."""
    powers = [10.0**power for power in range(-6, 3)]
    dense = [part * power for power in powers for part in (1, 1.5, 2, 3, 4, 5, 6, 8)]
    coarse = [part * power for power in powers for part in (1, 2, 5)]
    bound = most if most < 15 * least else 4 * least
    values = [value for value in dense if value < bound] + [value for value in coarse if value >= bound]
    values = [value for value in values if least <= value <= most]
    return values[:: 1 + len(values) // 16]


def _on_interval(models: list[ModelResult]) -> str:
    best = max(models, key=lambda model: model.metrics.val_accuracy)
    images, highest, (low, high) = validation_images(best), best.metrics.val_accuracy, validation_interval(best)
    return f"Over {images:,} validation images, the 95 % interval of {highest:.2f} % is {low:.2f} to {high:.2f} %."
