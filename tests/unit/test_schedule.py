"""The learning rate of each step: its warm-up, and what follows."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_cnn.training.schedule import learning_rate
from tests.helpers import RECIPE


@given(steps=st.integers(1, 10_000), fraction=st.floats(0, 0.99), data=st.data())
def test_a_constant_rate_stays_after_its_warmup(steps: int, fraction: float, data: st.DataObject) -> None:
    recipe = RECIPE.model_copy(update={"warmup_fraction": fraction})
    step = data.draw(st.integers(0, steps - 1))
    rate = learning_rate(recipe, step, steps)
    if step >= fraction * steps:
        assert rate == recipe.max_lr
    assert 0 < rate <= recipe.max_lr * (1 + 1e-12)


@given(
    steps=st.integers(3, 10_000), fraction=st.floats(0.01, 0.99), schedule=st.sampled_from(["constant", "one_cycle"])
)
def test_the_warmup_is_linear(steps: int, fraction: float, schedule: str) -> None:
    recipe = RECIPE.model_copy(update={"warmup_fraction": fraction, "schedule": schedule})
    warmup = fraction * steps
    for step in {0, 1, int(warmup) // 2, int(warmup) - 1}:
        if 0 <= step < int(warmup):
            assert learning_rate(recipe, step, steps) == pytest.approx(recipe.max_lr * (step + 1) / warmup)


@given(steps=st.integers(100, 2000), fraction=st.floats(0, 0.5))
def test_one_cycle_rises_to_its_peak_and_falls_to_nearly_nothing(steps: int, fraction: float) -> None:
    recipe = RECIPE.model_copy(update={"schedule": "one_cycle", "warmup_fraction": fraction})
    rates = [learning_rate(recipe, step, steps) for step in range(steps)]
    peak = rates.index(max(rates))
    assert peak in (math.floor(fraction * steps) - 1, math.floor(fraction * steps))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) <= recipe.max_lr * (1 + 1e-12)
    assert max(rates) == pytest.approx(recipe.max_lr, rel=max(0.002, 1 / (1 + fraction * steps)))
    assert 0 < rates[-1] < 0.002 * recipe.max_lr
    middle = rates[peak + (steps - peak) // 2]
    assert middle == pytest.approx(recipe.max_lr / 2, rel=0.1)


@given(quarter=st.integers(1, 500))
def test_one_cycle_reaches_its_rate_at_the_end_of_a_warmup_of_whole_steps(quarter: int) -> None:
    recipe = RECIPE.model_copy(update={"schedule": "one_cycle", "warmup_fraction": 0.25})
    assert learning_rate(recipe, quarter - 1, 4 * quarter) == pytest.approx(recipe.max_lr, rel=1e-12)
