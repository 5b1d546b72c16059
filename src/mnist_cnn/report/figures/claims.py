"""What a heading may claim: what the 95 % intervals bear."""

from collections.abc import Mapping, Sequence

import numpy as np

from mnist_cnn.evaluation.intervals import wilson_interval
from mnist_cnn.report.results import ModelResult

Interval = tuple[float, float]


def validation_images(model: ModelResult) -> int:
    """How many images the validation split has."""
    return sum(map(sum, model.confusion))


def validation_interval(model: ModelResult) -> Interval:
    """95 % interval of the validation accuracy over images, in percent."""
    return wilson_interval(int(np.trace(model.confusion)), validation_images(model))


def leader(intervals: Mapping[str, Interval]) -> str | None:
    """The one whose interval lies above all others, if there is such a one and there are others."""
    first, *others = sorted(intervals, key=lambda name: intervals[name], reverse=True)
    return first if others and all(intervals[name][1] < intervals[first][0] for name in others) else None


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them: ``a, b and c``."""
    return ", ".join([*names[:-2], " and ".join(names[-2:])])
