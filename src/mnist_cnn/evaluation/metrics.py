"""What is measured of a model, and how each metric is shown. Accuracies and recalls are in percent."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, NamedTuple, get_origin, get_type_hints

import pandas as pd
import torch
from torch import Tensor

from mnist_cnn.common.mnist import CLASSES
from mnist_cnn.engine.predictor import Predictions
from mnist_cnn.settings.params import Targets


class Display(NamedTuple):
    """How a metric is shown: its label, the least and most decimals, and whether more of it is better.

    ``better`` is 1 or -1, and 0 where a change is neither better nor worse by itself.
    """

    label: str
    least: int = 0
    most: int = 0
    better: int = 0

    def text(self, value: float) -> str:
        """The value with its decimals; zeros behind the least number of them are left out."""
        text = f"{value:,.{self.most}f}"
        kept = len(text) - (self.most - self.least)
        return text[:kept] + text[kept:].rstrip("0")


@dataclass(frozen=True)
class Metrics:
    """The metrics of a model, by the keys of ``metrics/<name>.json``.

    Accuracies, gap, calibration error and recall are rounded to 4 decimals, the loss to 6: more would be noise. The gap
    is training less test accuracy. ``engine`` is what computed: "native" or "torch".
    """

    parameters: Annotated[int, Display("Parameters", 0, 0, -1)]
    epochs: Annotated[int, Display("Epochs", 0, 0, -1)]
    train_accuracy: Annotated[float, Display("Training accuracy, %", 2, 4, 0)]
    val_accuracy: Annotated[float, Display("Validation accuracy, %", 2, 2, 1)]
    test_accuracy: Annotated[float, Display("Test accuracy, %", 2, 2, 1)]
    test_loss: Annotated[float, Display("Test loss, nats", 4, 6, -1)]
    generalization_gap: Annotated[float, Display("Training above test, points", 2, 4, 0)]
    calibration_error: Annotated[float, Display("Calibration error, points", 2, 4, -1)]
    worst_class_recall: Annotated[float, Display("Recall of the weakest digit, %", 2, 4, 1)]
    meets_accuracy_target: bool
    meets_epochs_target: bool
    meets_parameters_target: bool
    engine: str

    def as_dict(self) -> dict[str, Any]:
        """The metrics by key, in order."""
        return asdict(self)


# How metrics are shown, by key.
DISPLAYS: dict[str, Display] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Metrics, include_extras=True).items()
    if get_origin(hint) is Annotated
}
# The keys of the metrics that tell whether a model meets its targets.
TARGETS = tuple(item.name for item in fields(Metrics) if item.name.startswith("meets_"))


def missed_targets(metrics: Mapping[str, Any], targets: Targets) -> list[str]:
    """The targets that a model misses, in words; ``metrics`` by key."""
    words = (
        f"{targets.test_accuracy:g} % accuracy",
        f"at most {targets.max_epochs} epochs",
        f"fewer than {targets.parameters_below:,} parameters",
    )
    return [target for key, target in zip(TARGETS, words, strict=True) if not metrics[key]]


def confusion(predictions: Predictions) -> Tensor:
    """Counts, int64 ``(10, 10)``: a row is a true class, a column a predicted one."""
    cells = predictions.labels * CLASSES + predictions.logits.argmax(1)
    return torch.bincount(cells, minlength=CLASSES * CLASSES).view(CLASSES, CLASSES)


def confusion_table(counts: Tensor) -> pd.DataFrame:
    """A confusion matrix with a row a pair of classes: ``actual``, ``predicted``, ``count``."""
    return pd.DataFrame(
        {"actual": actual, "predicted": predicted, "count": count}
        for actual, row in enumerate(counts.tolist())
        for predicted, count in enumerate(row)
    )


def recall(counts: Tensor) -> Tensor:
    """Fraction of each true class that is classified correctly, float64 ``(10,)`` in percent, from a confusion matrix.

    A class without images has recall nan.
    """
    return 100 * counts.diagonal().double() / counts.sum(1).double()


def calibration_error(predictions: Predictions, bins: int) -> float:
    """Expected calibration error in points: how far confidence is from accuracy, on average.

    Images are put into ``bins`` equal intervals of the probability of their predicted class; the distances
    between mean probability and accuracy are averaged, weighted by the intervals' sizes.

    Source: "On Calibration of Modern Neural Networks", 2017, https://arxiv.org/abs/1706.04599
    """
    confidence = predictions.logits.double().softmax(1).max(1).values
    correct = predictions.correct.double()
    interval = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, interval, correct - confidence)
    return 100 * gap.abs().sum().item() / len(correct)
