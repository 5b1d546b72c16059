"""What the stages before have left of each model."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.sealed import read_sealed
from mnist_cnn.evaluation.evaluate import Misclassified
from mnist_cnn.evaluation.metrics import Metrics, OnTestSet

# The fields of ``training.fit.Epoch``, which is not imported: nothing in the training should make the report stale.
HISTORY = ("epoch", "learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy")


class Exported(NamedTuple):
    """A model's ONNX file, and how far it agrees with the model, as the stage ``export`` tells of it."""

    opset: int
    bytes: int
    images: int
    different: int
    largest_difference: float


class ModelResult(NamedTuple):
    """All that the report knows of one model.

    ``test`` is None where no look at the test set is declared; ``exported`` is about its ONNX file; ``confusion``
    counts validation images, a row a true digit; ``history`` has a row an epoch, with the fields of
    ``training.fit.Epoch`` as columns.
    """

    name: str
    metrics: Metrics
    test: OnTestSet | None
    exported: Exported
    receptive_field_px: int | None
    confusion: list[list[int]]
    misclassified: list[Misclassified]
    history: pd.DataFrame

    @property
    def held_out(self) -> tuple[str, float]:
        """The split that tells of other images, and the accuracy on it in percent.

        The test set where it was looked at, else validation.
        """
        return ("test", self.test.accuracy) if self.test else ("validation", self.metrics.val_accuracy)

    @property
    def gap(self) -> float:
        """By how many points training accuracy is above that on the held-out split."""
        return round(self.metrics.train_accuracy - self.held_out[1], 4)


def load_result(name: str, evaluations: Path, tests: Path, exports: Path, histories: Path) -> ModelResult:
    """What the stages before have left of a model. Raises InputError when it is missing or damaged."""
    record, test, history = evaluations / f"{name}.json", tests / f"{name}.json", histories / f"{name}.csv"
    export = exports / f"{name}.json"
    kept, tested, exported = (read_sealed(file, "'dvc repro'") for file in (record, test, export))
    try:
        return ModelResult(
            name,
            Metrics(**kept["metrics"]),
            None if tested["tested"] is None else OnTestSet(**tested["tested"]),
            Exported(**exported),
            kept["receptive_field_px"],
            kept["confusion"],
            [Misclassified(**image) for image in kept["misclassified"]],
            _load_history(history, kept["metrics"]["epochs"]),
        )
    except (TypeError, KeyError) as error:
        fault = " ".join(str(error).split())
        raise InputError(
            f"{record}, {test} or {export}: of another version ({fault}); 'dvc repro' restores it"
        ) from None


def _load_history(path: Path, epochs: int) -> pd.DataFrame:
    """A row an epoch, with the columns ``HISTORY``. Raises InputError when it is missing or damaged."""
    try:
        history = pd.read_csv(path)[list(HISTORY)].astype(float).astype({"epoch": int})
        if history["epoch"].tolist() != list(range(1, epochs + 1)) or not np.isfinite(history).all(axis=None):
            raise ValueError(f"not {epochs} rows, one an epoch, with finite numbers")
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        fault = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({fault}); 'dvc repro' restores it") from None
    return history
