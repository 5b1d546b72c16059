"""What chance can explain: an interval for a mean, and a test for the difference of two networks."""

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
