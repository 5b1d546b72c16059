"""How sure a figure is: intervals of an accuracy, of a mean, of a difference, and a test for two networks."""

import math
from collections.abc import Collection, Sequence
from statistics import mean

from scipy import stats


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion, in percent.

    Source: "Probable Inference, the Law of Succession, and Statistical Inference", 1927,
    https://doi.org/10.1080/01621459.1927.10502953
    """
    interval = stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def student_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval for the mean that ``values`` are drawn around, by Student's t; ``(nan, nan)`` for a single one.

    Source: "The Probable Error of a Mean", 1908, https://doi.org/10.1093/biomet/6.1.1
    """
    if len(values) < 2:
        return math.nan, math.nan
    spread = float(stats.sem(values))
    if not spread:  # of equal values scipy's interval is (nan, nan)
        return mean(values), mean(values)
    low, high = stats.t.interval(confidence, len(values) - 1, loc=mean(values), scale=spread)
    return float(low), float(high)


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
        first, second: the images that each misclassifies. Those that both do say nothing.

    Source: "Note on the sampling error of the difference between correlated proportions", 1947,
    https://doi.org/10.1007/BF02295996
    """
    only_first, only_second = len(set(first) - set(second)), len(set(second) - set(first))
    if not only_first + only_second:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)
