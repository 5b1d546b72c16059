"""Results of models, made up."""

from typing import Any

import pandas as pd
import torch

from mnist_cnn.evaluation.corruptions import corruptions
from mnist_cnn.evaluation.evaluate import Misclassified
from mnist_cnn.evaluation.metrics import Metrics, OnTestSet
from mnist_cnn.report.results import Exported, ModelResult
from mnist_cnn.settings.params import load
from tests.helpers import ROOT, noise

# True digit, the digit it is taken for, how often.
Mistake = tuple[int, int, int]

# Accuracies on corrupted images, by the corruptions' names.
ROBUSTNESS = {
    corruption.name: 99 - 2.5 * place
    for place, corruption in enumerate(corruptions(load(ROOT / "params.yaml").robustness))
}


def metrics(**changes: Any) -> Metrics:  # noqa: ANN401
    """Metrics of a model that meets all targets but where they are changed."""
    usual: dict[str, Any] = {
        "parameters": 7000, "epochs": 15, "train_accuracy": 99.7, "val_accuracy": 99.3, "val_loss": 0.02,
        "calibration_error": 0.3, "worst_class_recall": 98.9, "engine": "native",
    }  # fmt: skip
    return Metrics(**usual | changes)


def model_result(
    name: str = "model_2",
    mistakes: list[Mistake] | None = None,
    *,
    test_errors: int | None = 50,
    each: int = 1000,
    history: dict[str, Any] | None = None,
    **changes: Any,  # noqa: ANN401
) -> ModelResult:
    """A model that knows ``each`` images of every digit but for its mistakes, the most probable of them first.

    Args:
        test_errors: of 10,000 test images; None where it was not looked at.
        changes: of its metrics; validation accuracy follows from mistakes where there are any.
    """
    confusion = (each * torch.eye(10, dtype=torch.int64)).tolist()
    misclassified: list[Misclassified] = []
    for label, predicted, count in mistakes or []:
        confusion[label][label] -= count
        confusion[label][predicted] += count
        for _ in range(count):
            number = len(misclassified)
            pixels = noise(1, seed=number % 3).pixels[0].tolist() if number < 100 else []
            probability = max(0.4, 0.99 - number / 100)
            rest = next(digit for digit in range(10) if digit not in (label, predicted))
            likeliest = [(predicted, probability), (label, (1 - probability) / 2), (rest, (1 - probability) / 4)]
            misclassified.append(Misclassified(number, label, likeliest, pixels))
    follows = {"val_accuracy": round(100 * (1 - len(misclassified) / (10 * each)), 4)} if mistakes else {}
    test = None if test_errors is None else OnTestSet(10_000, 10_000 - test_errors, 0.02, ROBUSTNESS)
    exported = Exported(opset=18, bytes=34_567, images=10_000, different=0, largest_difference=1e-6)
    rows = history or {"epoch": [1, 2], "val_accuracy": [98.0, 99.3]}
    measured = metrics(**follows | changes)
    return ModelResult(name, measured, test, exported, 20, confusion, misclassified, pd.DataFrame(rows))
