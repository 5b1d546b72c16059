"""Numbers made of predictions, against hand-made cases, plain loops and published values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mnist_cnn import metrics
from mnist_cnn.data import Images, Normalisation
from mnist_cnn.engine import Compute, evaluation_pass
from mnist_cnn.metrics import Predictions, wilson_interval
from mnist_cnn.models import build

CPU = torch.device("cpu")
NORMALISATION = Normalisation(0.13, 0.31)


def told(cases: list[tuple[int, int, float]]) -> Predictions:
    """Predictions of (true class, predicted class, its probability); the other classes share the rest."""
    scores = torch.empty(len(cases), 10)
    for row, (_, predicted, probability) in zip(scores, cases, strict=True):
        row[:] = math.log((1 - probability) / 9)
        row[predicted] = math.log(probability)
    # A constant added to all scores of an image changes nothing.
    return Predictions(scores + torch.arange(len(cases)).unsqueeze(1), torch.tensor([label for label, _, _ in cases]))


def random_predictions(count: int, seed: int) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, 10, generator=generator) * 2
    labels = torch.randint(10, (count,), generator=generator)
    # Half of them right at least: underconfident in some intervals, overconfident in others.
    return Predictions(scores, torch.where(torch.rand(count, generator=generator) < 0.5, scores.argmax(1), labels))


def digits(count: int) -> Images:
    return Images(torch.randint(256, (count, 28, 28), dtype=torch.uint8), torch.arange(count) % 10)


def test_accuracy_is_the_share_of_labels_with_the_highest_score() -> None:
    assert metrics.accuracy(told([(1, 1, 0.9), (2, 2, 0.2), (3, 4, 0.9), (0, 0, 0.5)])) == 75
    assert metrics.accuracy(told([(1, 2, 0.9)])) == 0


@pytest.mark.parametrize(
    ("correct", "total"), [(0, 3), (1, 7), (14, 1000), (942, 1000), (9004, 10_000), (9940, 10_000)]
)
def test_accuracy_is_the_nearest_number_to_its_percentage(correct: int, total: int) -> None:
    scores = torch.eye(10)[(torch.arange(total) >= correct).long()]
    assert metrics.accuracy(Predictions(scores, torch.zeros(total, dtype=torch.int64))) == 100 * correct / total


def test_loss_is_the_mean_surprise() -> None:
    predictions = told([(1, 1, 0.9), (3, 4, 0.7), (5, 5, 0.5)])
    expected = -(math.log(0.9) + math.log(0.3 / 9) + math.log(0.5)) / 3
    assert metrics.loss(predictions) == pytest.approx(expected, rel=1e-6)


def test_loss_stays_finite_for_extreme_scores() -> None:
    assert metrics.loss(Predictions(torch.eye(10)[:1] * 1e4, torch.tensor([1]))) == pytest.approx(1e4)


def test_confusion_counts_true_classes_in_rows_and_predicted_ones_in_columns() -> None:
    counts = metrics.confusion(told([(3, 5, 0.9), (3, 5, 0.8), (5, 3, 0.9), (9, 9, 0.4)]))
    expected = torch.zeros(10, 10, dtype=torch.int64)
    expected[3, 5], expected[5, 3], expected[9, 9] = 2, 1, 1
    assert torch.equal(counts, expected)


@given(count=st.integers(1, 200), seed=st.integers(0, 10_000))
def test_confusion_agrees_with_accuracy_and_labels(count: int, seed: int) -> None:
    predictions = random_predictions(count, seed)
    counts = metrics.confusion(predictions)
    assert torch.equal(counts.sum(1), torch.bincount(predictions.labels, minlength=10))
    assert 100 * counts.trace().item() / count == pytest.approx(metrics.accuracy(predictions))


def test_recall_is_the_share_of_each_true_class_and_nan_for_none() -> None:
    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts[0, 0], counts[1, 1], counts[1, 7], counts[2, 3] = 5, 3, 1, 2
    assert metrics.recall(counts).tolist() == pytest.approx([100, 75, 0, *[math.nan] * 7], nan_ok=True)


def test_calibration_error_is_zero_where_confidence_is_accuracy() -> None:
    cases = [(1, 1, 0.8)] * 8 + [(2, 1, 0.8)] * 2 + [(0, 0, 0.6)] * 3 + [(5, 0, 0.6)] * 2
    assert metrics.calibration_error(told(cases), 13) == pytest.approx(0, abs=1e-4)


def test_calibration_error_weighs_distances_in_either_direction_by_size() -> None:
    # Three of four images 20 points underconfident, the other 90 points overconfident.
    cases = [(1, 1, 0.8), (2, 2, 0.8), (3, 3, 0.8), (4, 5, 0.9)]
    assert metrics.calibration_error(told(cases), 13) == pytest.approx((3 * 20 + 90) / 4, abs=1e-4)
    # In a single interval they cancel in part.
    assert metrics.calibration_error(told(cases), 1) == pytest.approx((90 - 3 * 20) / 4, abs=1e-4)
    # The lowest intervals count as all others do.
    assert metrics.calibration_error(told([(1, 1, 0.4), (2, 3, 0.6)]), 2) == pytest.approx(60, abs=1e-4)


@given(count=st.integers(1, 200), bins=st.integers(1, 40), seed=st.integers(0, 10_000))
def test_calibration_error_is_that_of_a_plain_loop(count: int, bins: int, seed: int) -> None:
    predictions = random_predictions(count, seed)
    exponentials = np.exp(predictions.scores.numpy().astype(np.float64))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == predictions.labels.numpy()
    error = 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert metrics.calibration_error(predictions, bins) == pytest.approx(100 * error, abs=1e-6)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (95, 100, 88.82, 97.85),
        (0, 10, 0, 27.75),
        (10, 10, 72.25, 100),
        # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0, 16.11),
        (1, 29, 0.61, 17.18),
    ],
)
def test_the_interval_is_the_published_one(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=0.006)


@given(total=st.integers(1, 20_000), data=st.data())
def test_the_interval_holds_the_proportion_lies_within_percent_and_narrows(total: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, total))
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= 100 * correct / total + 1e-9
    assert 100 * correct / total - 1e-9 <= high <= 100
    more_low, more_high = wilson_interval(4 * correct, 4 * total)
    assert more_high - more_low < high - low
    # What fails is what succeeds, seen from the other end.
    mirrored = wilson_interval(total - correct, total)
    assert (100 - mirrored[1], 100 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


def test_the_interval_widens_with_the_quantile() -> None:
    low, high = wilson_interval(95, 100)
    surer_low, surer_high = wilson_interval(95, 100, z=2.575829)
    assert surer_low < low < high < surer_high


ENGINES = pytest.mark.parametrize("compute", [Compute(CPU), Compute(CPU, "native")], ids=["torch", "native"])


@ENGINES
@pytest.mark.parametrize("training", [True, False])
def test_predicting_changes_nothing(training: bool, compute: Compute) -> None:
    network, images = build("model_5", 0.5).train(training), digits(50)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    metrics.predict(evaluation_pass(network, 20, compute), images, NORMALISATION, 20, CPU)
    assert all(module.training is training for module in network.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)


@ENGINES
def test_predictions_do_not_depend_on_the_batch_size_and_keep_the_order(compute: Compute) -> None:
    network, images = build("model_5", 0.5), digits(20)
    network(torch.randn(100, 1, 28, 28))  # Running statistics that are not what they began with.
    inputs = (images.pixels.unsqueeze(1) / 255 - 0.13) / 0.31
    with torch.no_grad():
        expected = network.eval()(inputs)
    network.train()
    for size in (1, 7, 20, 1000):
        scores, labels = metrics.predict(evaluation_pass(network, size, compute), images, NORMALISATION, size, CPU)
        assert scores.dtype == torch.float32
        assert torch.equal(labels, images.labels)
        torch.testing.assert_close(scores, expected)


@ENGINES
def test_the_scores_of_several_views_are_averaged(compute: Compute) -> None:
    network, images = build("model_5", 0.5), digits(20)

    def scores(pixels: Tensor) -> Tensor:
        evaluated = evaluation_pass(network, 8, compute)
        return metrics.predict(evaluated, Images(pixels, images.labels), NORMALISATION, 8, CPU).scores

    several = torch.stack([images.pixels, images.pixels.flip(1), images.pixels.flip(2)], dim=1)
    torch.testing.assert_close(scores(several), torch.stack([scores(view) for view in several.unbind(1)]).mean(0))
    assert torch.equal(scores(images.pixels.unsqueeze(1)), scores(images.pixels))


def test_the_mode_is_put_back_when_predicting_fails() -> None:
    class Failing(nn.Module):
        def forward(self, input: Tensor) -> Tensor:
            raise RuntimeError("no scores")

    network = Failing().train()
    with pytest.raises(RuntimeError, match="no scores"):
        metrics.predict(evaluation_pass(network, 1, Compute(CPU)), digits(1), NORMALISATION, 1, CPU)
    assert network.training
