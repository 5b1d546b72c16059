"""Metrics of predictions, against cases made by hand and plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mnist_cnn.engine.predictor import Predictions
from mnist_cnn.evaluation.metrics import calibration_error, confusion, recall


def predictions_of(cases: list[tuple[int, int, float]]) -> Predictions:
    """Predictions of (true class, predicted class, its probability); the other classes share the rest."""
    logits = torch.empty(len(cases), 10)
    for row, (_, predicted, probability) in zip(logits, cases, strict=True):
        row[:] = math.log((1 - probability) / 9)
        row[predicted] = math.log(probability)
    # A constant added to all logits of an image changes nothing.
    return Predictions(logits + torch.arange(len(cases)).unsqueeze(1), torch.tensor([label for label, _, _ in cases]))


def random_predictions(count: int, seed: int) -> Predictions:
    """At least half of them correct: underconfident in some intervals, overconfident in others."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 10, generator=generator) * 2
    labels = torch.randint(10, (count,), generator=generator)
    return Predictions(logits, torch.where(torch.rand(count, generator=generator) < 0.5, logits.argmax(1), labels))


def test_confusion_counts_true_classes_in_rows_and_predicted_ones_in_columns() -> None:
    expected = torch.zeros(10, 10, dtype=torch.int64)
    expected[3, 5], expected[5, 3], expected[9, 9] = 2, 1, 1
    assert torch.equal(confusion(predictions_of([(3, 5, 0.9), (3, 5, 0.8), (5, 3, 0.9), (9, 9, 0.4)])), expected)


@given(count=st.integers(1, 200), seed=st.integers(0, 10_000))
def test_confusion_agrees_with_accuracy_and_labels(count: int, seed: int) -> None:
    predictions = random_predictions(count, seed)
    counts = confusion(predictions)
    assert torch.equal(counts.sum(1), torch.bincount(predictions.labels, minlength=10))
    assert 100 * counts.trace().item() / count == pytest.approx(predictions.accuracy)


def test_recall_is_the_fraction_of_each_true_class_and_nan_for_none() -> None:
    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts[0, 0], counts[1, 1], counts[1, 7], counts[2, 3] = 5, 3, 1, 2
    assert recall(counts).tolist() == pytest.approx([100, 75, 0, *[math.nan] * 7], nan_ok=True)


def test_calibration_error_is_zero_where_confidence_is_accuracy() -> None:
    cases = [(1, 1, 0.8)] * 8 + [(2, 1, 0.8)] * 2 + [(0, 0, 0.6)] * 3 + [(5, 0, 0.6)] * 2
    assert calibration_error(predictions_of(cases), 13) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("bins", "error"),
    [
        # Three of four images 20 points underconfident, the other 90 points overconfident.
        (13, (3 * 20 + 90) / 4),
        # In a single interval they cancel in part.
        (1, (90 - 3 * 20) / 4),
    ],
)
def test_calibration_error_weighs_distances_in_either_direction_by_size(bins: int, error: float) -> None:
    cases = [(1, 1, 0.8), (2, 2, 0.8), (3, 3, 0.8), (4, 5, 0.9)]
    assert calibration_error(predictions_of(cases), bins) == pytest.approx(error, abs=1e-4)


def test_the_lowest_interval_counts_as_all_others_do() -> None:
    assert calibration_error(predictions_of([(1, 1, 0.4), (2, 3, 0.6)]), 2) == pytest.approx(60, abs=1e-4)


@given(count=st.integers(1, 200), bins=st.integers(1, 40), seed=st.integers(0, 10_000))
def test_calibration_error_is_that_of_a_plain_loop(count: int, bins: int, seed: int) -> None:
    predictions = random_predictions(count, seed)
    exponentials = np.exp(predictions.logits.numpy().astype(np.float64))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == predictions.labels.numpy()
    error = 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert calibration_error(predictions, bins) == pytest.approx(100 * error, abs=1e-6)
