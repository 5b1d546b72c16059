"""Intervals and a test of significance: against closed formulas and published values."""

import math
from collections.abc import Callable
from functools import partial
from statistics import NormalDist, mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_cnn.evaluation.intervals import difference_interval, mcnemar, student_interval, wilson_interval

CONFIDENCES = st.floats(0.5, 0.999)
ACCURACIES = st.floats(0, 100).map(lambda value: round(value, 4))


def students_quantile(p: float, freedom: int) -> float:
    """Of Student's t at ``p`` above a half, for the degrees of freedom of which there is a closed formula."""
    alpha = 4 * p * (1 - p)
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) * math.sqrt(2 / alpha)
    return 2 * math.sqrt(math.cos(math.acos(math.sqrt(alpha)) / 3) / math.sqrt(alpha) - 1)  # 4


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0, 16.11),
        (1, 29, 0.61, 17.18),
    ],
)
def test_wilsons_interval_is_the_published_one(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=0.006)


@given(total=st.integers(1, 20_000), confidence=CONFIDENCES, data=st.data())
def test_wilsons_interval_is_that_of_the_closed_formula(total: int, confidence: float, data: st.DataObject) -> None:
    correct = data.draw(st.sampled_from([0, total]) | st.integers(0, total))
    z, p = NormalDist().inv_cdf((1 + confidence) / 2), correct / total
    middle = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    low, high = wilson_interval(correct, total, confidence)
    assert (low, high) == pytest.approx((100 * (middle - half), 100 * (middle + half)), abs=1e-8)
    assert 0 <= low <= 100 * p + 1e-9 and 100 * p - 1e-9 <= high <= 100


@given(total=st.integers(1, 20_000), data=st.data())
def test_wilsons_interval_narrows_with_more_images_and_is_the_same_of_what_fails(
    total: int, data: st.DataObject
) -> None:
    correct = data.draw(st.integers(0, total))
    low, high = wilson_interval(correct, total)
    more_low, more_high = wilson_interval(4 * correct, 4 * total)
    assert more_high - more_low < high - low
    mirrored = wilson_interval(total - correct, total)
    assert (100 - mirrored[1], 100 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("interval", [partial(wilson_interval, 95, 100), partial(student_interval, [1, 2, 4])])
def test_intervals_are_of_95_percent_and_widen_with_the_confidence(
    interval: Callable[..., tuple[float, float]],
) -> None:
    low, high = interval()
    assert (low, high) == interval(confidence=0.95)
    surer_low, surer_high = interval(confidence=0.99)
    assert surer_low < low < high < surer_high


@given(
    values=st.sampled_from([2, 3, 5]).flatmap(lambda count: st.lists(ACCURACIES, min_size=count, max_size=count)),
    confidence=CONFIDENCES,
)
def test_students_interval_is_that_of_the_closed_formula(values: list[float], confidence: float) -> None:
    half = students_quantile((1 + confidence) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    expected = mean(values) - half, mean(values) + half
    assert student_interval(values, confidence) == pytest.approx(expected, rel=1e-8, abs=1e-8)


@given(value=ACCURACIES, count=st.integers(2, 20))
def test_students_interval_of_equal_values_is_their_value(value: float, count: int) -> None:
    assert student_interval([value] * count) == pytest.approx((value, value), abs=1e-9)


def test_a_single_value_has_no_interval() -> None:
    assert all(math.isnan(bound) for bound in student_interval([99.5]))


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # The paper's first example by its tenth method: 56 of 70 and 48 of 80, 0.0524 to 0.3339.
    first, second = (100 * 48 / 80, *wilson_interval(48, 80)), (100 * 56 / 70, *wilson_interval(56, 70))
    low, high = difference_interval(first, second)
    assert (low, high) == pytest.approx((5.24, 33.39), abs=0.01)
    assert difference_interval(second, first) == pytest.approx((-high, -low))


def test_mcnemars_test_is_exact_and_counts_the_images_that_only_one_misclassifies() -> None:
    # 1 against 7: of 8 throws of a coin, as far from the middle: 2 * (1 + 8) / 256.
    first, second = {1, 100, 101}, {*range(2, 9), 100, 101}
    assert mcnemar(first, second) == pytest.approx(2 * 9 / 256)
    assert mcnemar(second, first) == mcnemar(first, second)
    assert mcnemar({1, 2}, {3, 4}) == 1
    assert mcnemar([5, 6], [5, 6]) == 1
    assert mcnemar([], []) == 1
