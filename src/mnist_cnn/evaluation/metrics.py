"""What is measured of a model, and how each metric is shown. Accuracies and recalls are in percent."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NamedTuple, get_origin, get_type_hints

import pandas as pd
import torch
from torch import Tensor

from mnist_cnn.common.mnist import CLASSES
from mnist_cnn.engine.predictor import Predictions
from mnist_cnn.evaluation.intervals import wilson_interval
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
    """What the stage ``evaluate`` measures of a model, on the training and the validation split.

    Accuracies, calibration error and recall are rounded to 4 decimals, the loss to 6: more would be noise. All but the
    training accuracy are of validation images. ``engine`` is what computed: "native" or "torch".
    """

    parameters: Annotated[int, Display("Parameters", 0, 0, -1)]
    epochs: Annotated[int, Display("Epochs", 0, 0, -1)]
    train_accuracy: Annotated[float, Display("Training accuracy, %", 2, 4, 0)]
    val_accuracy: Annotated[float, Display("Validation accuracy, %", 2, 2, 1)]
    val_loss: Annotated[float, Display("Validation loss, nats", 4, 6, -1)]
    calibration_error: Annotated[float, Display("Calibration error, points", 2, 4, -1)]
    worst_class_recall: Annotated[float, Display("Recall of the weakest class, %", 2, 4, 1)]
    engine: str

    def as_dict(self) -> dict[str, Any]:
        """The metrics by key, in order."""
        return asdict(self)

    def compared(self) -> dict[str, Any]:
        """Those that ``dvc metrics`` and ``dvc exp show`` compare: few, so that a table of them can be read."""
        return {key: getattr(self, key) for key in ("parameters", "train_accuracy", "val_accuracy", "val_loss")}


class OnTestSet(NamedTuple):
    """What the stage ``test`` measures of a model, on the test set.

    ``loss`` is the mean cross-entropy in nats, rounded to 6 decimals; ``robustness`` has the accuracy in percent on the
    images as each corruption leaves them, by the names of ``evaluation.corruptions``.
    """

    images: int
    correct: int
    loss: float
    robustness: dict[str, float]

    @property
    def accuracy(self) -> float:
        """Fraction of the test images that are classified correctly, in percent."""
        return 100 * self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy over test images, in percent."""
        return wilson_interval(self.correct, self.images)

    def compared(self) -> dict[str, float]:
        """What ``dvc metrics`` compares, as of ``Metrics``."""
        return {"test_accuracy": round(self.accuracy, 4), "test_loss": self.loss}


# How metrics are shown, by key; those of the test set last.
DISPLAYS: dict[str, Display] = {
    **{
        name: hint.__metadata__[0]
        for name, hint in get_type_hints(Metrics, include_extras=True).items()
        if get_origin(hint) is Annotated
    },
    "test_accuracy": Display("Test accuracy, %", 2, 2, 1),
    "test_loss": Display("Test loss, nats", 4, 6, -1),
}
# The keys of what tells whether a model meets its targets.
TARGETS = ("meets_accuracy_target", "meets_epochs_target", "meets_parameters_target")


def targets_met(metrics: Metrics, tested: OnTestSet | None, targets: Targets) -> dict[str, bool | None]:
    """Whether a model meets each target, by ``TARGETS``; None where it was not looked at on the test set."""
    met = (
        None if tested is None else tested.accuracy >= targets.test_accuracy,
        metrics.epochs <= targets.max_epochs,
        metrics.parameters < targets.parameters_below,
    )
    return dict(zip(TARGETS, met, strict=True))


def missed_targets(met: Mapping[str, Any], targets: Targets) -> list[str]:
    """The targets that a model misses, in words.

    Args:
        met: by ``TARGETS``. What is None or nan is not known, and not missed.
    """
    words = (
        f"{targets.test_accuracy:g} % accuracy",
        f"at most {targets.max_epochs} epochs",
        f"fewer than {targets.parameters_below:,} parameters",
    )
    return [target for key, target in zip(TARGETS, words, strict=True) if is_known(met[key]) and not met[key]]


def is_known(met: float | None) -> bool:
    """Whether it is known that a target is met or missed; a table has nan where it is not."""
    return met is not None and not math.isnan(met)


def confusion(predictions: Predictions) -> Tensor:
    """Counts, int64 ``(10, 10)``: a row is a true class, a column a predicted one."""
    cells = predictions.labels * CLASSES + predictions.logits.argmax(1)
    return torch.bincount(cells, minlength=CLASSES * CLASSES).view(CLASSES, CLASSES)


def confusion_table(counts: Tensor, labels: Sequence[str]) -> pd.DataFrame:
    """A confusion matrix with a row a pair of classes, by their labels: ``actual``, ``predicted``, ``count``."""
    return pd.DataFrame(
        {"actual": actual, "predicted": predicted, "count": count}
        for actual, row in zip(labels, counts.tolist(), strict=True)
        for predicted, count in zip(labels, row, strict=True)
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
