"""What chance can explain: intervals for a mean and a difference, and a test for the difference of two networks."""

import math
from collections.abc import Collection, Sequence
from statistics import mean, stdev

from scipy import stats


def student_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval for the mean that ``values`` are drawn around, by Student's t; ``(nan, nan)`` for a single one.

    Source: "The Probable Error of a Mean", 1908, https://doi.org/10.1093/biomet/6.1.1
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return mean(values) - half, mean(values) + half


def difference_interval(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float]:
    """95 % interval of second minus first, two independent proportions, each with its own Wilson interval.

    Networks that are tested on the same images err on many of the same ones, so the true interval is narrower.

    Source: "Interval estimation for the difference between independent proportions: comparison of eleven methods",
    1998, method 10
    """
    (old, old_low, old_high), (new, new_low, new_high) = first, second
    low, high = math.hypot(new - new_low, old_high - old), math.hypot(new_high - new, old - old_low)
    return new - old - low, new - old + high


def mcnemar(first: Collection[int], second: Collection[int]) -> float:
    """Probability that two equally good networks differ as much as these two do, on the same images; exact.

    Args:
        first, second: the images that each misreads. Those that both misread say nothing.

    Source: "Note on the sampling error of the difference between correlated proportions", 1947,
    https://doi.org/10.1007/BF02295996
    """
    only_first, only_second = len(set(first) - set(second)), len(set(second) - set(first))
    if not only_first + only_second:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)
