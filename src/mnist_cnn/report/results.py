"""What the stages before have left of each model."""

import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from mnist_cnn.common.errors import InputError
from mnist_cnn.evaluation.evaluate import Misclassified
from mnist_cnn.evaluation.intervals import wilson_interval
from mnist_cnn.evaluation.metrics import Metrics


class ModelResult(NamedTuple):
    """All that the report knows of one model.

    ``confusion`` counts test images, a row a true digit; ``history`` has a row an epoch, with the fields of
    ``training.fit.Epoch`` as columns.
    """

    name: str
    metrics: Metrics
    receptive_field_px: int | None
    confusion: list[list[int]]
    misclassified: list[Misclassified]
    history: pd.DataFrame

    @property
    def test_images(self) -> int:
        """How many images the test set has."""
        return sum(map(sum, self.confusion))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the test accuracy over test images, in percent."""
        return wilson_interval(self.test_images - len(self.misclassified), self.test_images)


def load_result(name: str, evaluations: Path, histories: Path) -> ModelResult:
    """What the stages before have left of a model. Raises InputError when it is missing or damaged."""
    record, history = evaluations / f"{name}.json", histories / f"{name}.csv"
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        return ModelResult(
            name,
            Metrics(**kept["metrics"]),
            kept["receptive_field_px"],
            kept["confusion"],
            [Misclassified(**image) for image in kept["misclassified"]],
            pd.read_csv(history),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        fault = " ".join(str(error).split())
        raise InputError(f"{name}: {record} or {history} cannot be read ({fault}); 'dvc repro' restores both") from None
