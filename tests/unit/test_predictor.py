"""Predictions of whole sets of images, their accuracy and loss, and test-time augmentation."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnist_cnn.common.errors import InputError
from mnist_cnn.data.images import Images
from mnist_cnn.engine.execution import ExecutionConfig
from mnist_cnn.engine.predictor import TTA_VIEWS, Predictions, Predictor
from mnist_cnn.models import build
from tests.helpers import NATIVE, NORMALISATION, TORCH, noise

ENGINES = pytest.mark.parametrize("execution", [TORCH, NATIVE], ids=["torch", "native"])
TTA = pytest.mark.parametrize("tta", [False, True], ids=["one view", "tta"])


def model_5() -> nn.Module:
    """With dropout, in training mode, with running statistics that are not what they began with."""
    torch.manual_seed(1)
    network = build("model_5", 0.5)
    network(torch.randn(100, 1, 28, 28))
    return network


def predict(
    network: nn.Module, images: Images, execution: ExecutionConfig = TORCH, *, tta: bool = False, batch_size: int = 8
) -> Predictions:
    return Predictor(network, NORMALISATION, execution, tta=tta, batch_size=batch_size)(images)


def expected_logits(network: nn.Module, pixels: Tensor, tta: bool) -> Tensor:
    """The mean over the views, all by PyTorch's functions in double precision and without rounding to pixels."""
    exact, images = copy.deepcopy(network).eval().double(), pixels.double().unsqueeze(1) / 255
    logits = []
    for degrees, left, up in TTA_VIEWS if tta else [(0.0, 0.0, 0.0)]:
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        theta = torch.tensor([[cos, -sin, left / 14], [sin, cos, up / 14]], dtype=torch.float64)
        grid = F.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        view = F.grid_sample(images, grid, align_corners=False)
        with torch.no_grad():
            logits.append(exact((view - NORMALISATION.mean) / NORMALISATION.std))
    return torch.stack(logits).mean(0)


@pytest.mark.parametrize(("correct", "total"), [(0, 3), (1, 7), (942, 1000), (9004, 10_000)])
def test_accuracy_is_the_nearest_number_to_its_percentage(correct: int, total: int) -> None:
    logits = torch.eye(10)[(torch.arange(total) >= correct).long()]
    predictions = Predictions(logits, torch.zeros(total, dtype=torch.int64))
    assert predictions.correct.tolist() == [True] * correct + [False] * (total - correct)
    assert predictions.accuracy == 100 * correct / total


def test_loss_is_the_mean_negative_log_probability_of_the_labels() -> None:
    probabilities = torch.full((3, 10), 0.02)
    probabilities[0, 1], probabilities[1, 4], probabilities[2, 5] = 0.82, 0.82, 0.82
    # A constant added to all logits of an image changes nothing.
    predictions = Predictions(probabilities.log() + torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([1, 3, 5]))
    assert predictions.loss == pytest.approx(-(2 * math.log(0.82) + math.log(0.02)) / 3, rel=1e-6)


def test_loss_stays_finite_for_extreme_logits() -> None:
    assert Predictions(torch.eye(10)[:1] * 1e4, torch.tensor([1])).loss == pytest.approx(1e4)


@ENGINES
@TTA
def test_logits_are_the_networks_in_order_whatever_the_batch_size(execution: ExecutionConfig, tta: bool) -> None:
    network, images = model_5(), noise(20)
    expected = expected_logits(network, images.pixels, tta)
    for batch_size in (1, 7, 1000):
        logits, labels = predict(network, images, execution, tta=tta, batch_size=batch_size)
        assert logits.dtype == torch.float32
        assert torch.equal(labels, images.labels)
        torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)


def test_views_begin_with_the_image_as_it_is_and_lie_around_it() -> None:
    assert TTA_VIEWS[0] == (0, 0, 0)
    assert len(set(TTA_VIEWS)) == 5
    assert torch.tensor(TTA_VIEWS).sum(0).tolist() == [0, 0, 0]


@ENGINES
@pytest.mark.parametrize("training", [True, False])
def test_predicting_changes_nothing(training: bool, execution: ExecutionConfig) -> None:
    network, images = model_5().train(training), noise(50)
    state, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    predict(network, images, execution, tta=True, batch_size=20)
    assert all(module.training is training for module in network.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)


@ENGINES
def test_weights_are_those_at_the_time_of_the_call(execution: ExecutionConfig) -> None:
    network, images = model_5(), noise(10)
    predictor = Predictor(network, NORMALISATION, execution, tta=False, batch_size=10)
    before = predictor(images).logits
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
    after = predictor(images).logits
    assert torch.equal(after, predict(network, images, execution, batch_size=10).logits)
    assert not torch.equal(after, before)


@TTA
def test_logits_that_are_not_finite_are_refused_and_counted(tta: bool) -> None:
    class LogOfContrast(nn.Module):
        def forward(self, input: Tensor) -> Tensor:
            return (input.amax((1, 2, 3)) - input.amin((1, 2, 3))).log().unsqueeze(1).expand(-1, 10)

    images = noise(20)
    # All views of a blank image are blank.
    images.pixels[[3, 11]] = 0
    with pytest.raises(InputError, match="2 of 20 images are not finite"):
        predict(LogOfContrast(), images, tta=tta)


def test_the_mode_is_put_back_when_predicting_fails() -> None:
    class Failing(nn.Module):
        def forward(self, input: Tensor) -> Tensor:
            raise RuntimeError("no logits")

    network = Failing().train()
    with pytest.raises(RuntimeError, match="no logits"):
        predict(network, noise(1))
    assert network.training
