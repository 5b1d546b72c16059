"""Intervals and tests against what is known of them from elsewhere."""

import math

import pytest

from mnist_cnn.metrics import wilson_interval
from mnist_cnn.evaluation.intervals import difference_interval, mcnemar, student_interval


def test_the_interval_is_students() -> None:
    # t of 4 degrees of freedom at 97.5 % is 2.776 (any table); deviation 1.5811, standard error 0.7071.
    low, high = student_interval([1, 2, 3, 4, 5])
    assert low == pytest.approx(3 - 2.776 * 0.70711, abs=1e-3)
    assert high == pytest.approx(3 + 2.776 * 0.70711, abs=1e-3)
    assert student_interval([7.0, 7.0]) == (7.0, 7.0)
    assert all(math.isnan(bound) for bound in student_interval([99.5]))


def test_the_paired_test_is_exact_and_looks_at_the_images_that_one_of_both_misreads() -> None:
    # 1 against 7: of 8 throws of a coin, as far from the middle: 2 * (1 + 8) / 256.
    first, second = {1, 100, 101}, {*range(2, 9), 100, 101}
    assert mcnemar(first, second) == pytest.approx(2 * 9 / 256)
    assert mcnemar(second, first) == mcnemar(first, second)
    assert mcnemar({1, 2}, {3, 4}) == 1
    assert mcnemar([5, 6], [5, 6]) == 1
    assert mcnemar([], []) == 1


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # The paper's first example by its tenth method: 56 of 70 and 48 of 80, 0.0524 to 0.3339.
    first, second = (100 * 48 / 80, *wilson_interval(48, 80)), (100 * 56 / 70, *wilson_interval(56, 70))
    low, high = difference_interval(first, second)
    assert (low, high) == pytest.approx((5.24, 33.39), abs=0.01)
    assert difference_interval(second, first) == pytest.approx((-high, -low))
