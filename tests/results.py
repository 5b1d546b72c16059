"""Results of models, made up."""

from typing import Any

import pandas as pd
import torch

from mnist_cnn.evaluation.evaluate import Misclassified
from mnist_cnn.evaluation.metrics import Metrics
from mnist_cnn.report.results import ModelResult
from tests.helpers import noise

# True digit, the digit it is taken for, how often.
Mistake = tuple[int, int, int]


def metrics(**changes: Any) -> Metrics:  # noqa: ANN401
    """Metrics of a model that meets all targets but where they are changed."""
    usual: dict[str, Any] = {
        "parameters": 7000, "epochs": 15, "train_accuracy": 99.7, "val_accuracy": 99.3, "test_accuracy": 99.5,
        "test_loss": 0.02, "generalization_gap": 0.1, "calibration_error": 0.3, "worst_class_recall": 98.9,
        "meets_accuracy_target": True, "meets_epochs_target": True, "meets_parameters_target": True, "engine": "native",
    }  # fmt: skip
    return Metrics(**usual | changes)


def model_result(
    name: str = "model_2",
    mistakes: list[Mistake] | None = None,
    *,
    each: int = 1000,
    history: dict[str, Any] | None = None,
    **changes: Any,  # noqa: ANN401
) -> ModelResult:
    """A model that knows ``each`` images of every digit but for its mistakes, the most probable of them first.

    Args:
        changes: of its metrics; accuracy and whether it meets its targets follow from mistakes and parameters.
    """
    confusion = (each * torch.eye(10, dtype=torch.int64)).tolist()
    misclassified: list[Misclassified] = []
    for label, predicted, count in mistakes or []:
        confusion[label][label] -= count
        confusion[label][predicted] += count
        for _ in range(count):
            number = len(misclassified)
            pixels = noise(1, seed=number % 3).pixels[0].tolist() if number < 100 else []
            misclassified.append(Misclassified(number, label, predicted, max(0.1, 0.99 - number / 100), pixels))
    accuracy = round(100 * (1 - len(misclassified) / (10 * each)), 4)
    follows = {
        "test_accuracy": accuracy,
        "meets_accuracy_target": accuracy >= 99.4,
        "meets_parameters_target": changes.get("parameters", 7000) < 8000,
    }
    rows = history or {"epoch": [1, 2], "val_accuracy": [98.0, 99.3]}
    return ModelResult(name, metrics(**follows | changes), 20, confusion, misclassified, pd.DataFrame(rows))
