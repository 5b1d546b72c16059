"""One step of gradient descent, and the clipping of its gradients."""

import pytest
import torch
from torch import nn

from mnist_cnn.engine.passes import training_pass
from mnist_cnn.training.step import clip_gradients_adaptively, train_step
from tests.helpers import TORCH


def test_a_step_goes_down_the_gradient_of_the_mean_loss_at_its_rate() -> None:
    layer = nn.Linear(4, 10)
    network, weight = nn.Sequential(nn.Flatten(), layer), layer.weight
    start = weight.detach().clone()
    inputs, labels = torch.randn(6, 1, 2, 2), torch.arange(6)
    logits = network(inputs)
    loss = -logits.log_softmax(1)[torch.arange(6), labels].mean()
    [gradient] = torch.autograd.grad(loss, [weight])
    # What is left of an earlier step does not count, nor does the rate that the optimizer was made with.
    weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=9)
    totals = train_step(training_pass(network, 6, TORCH), optimizer, inputs, labels, 0.25)
    torch.testing.assert_close(weight.detach(), start - 0.25 * gradient)
    assert totals.dtype == torch.float64
    assert totals.tolist() == pytest.approx([6 * loss.item(), (logits.argmax(1) == labels).sum().item()])


def test_label_smoothing_spreads_its_fraction_over_all_classes() -> None:
    logits, labels = torch.randn(6, 10, requires_grad=True), torch.arange(6)
    wanted = nn.functional.one_hot(labels, 10) * 0.7 + 0.3 / 10
    loss = -(wanted * logits.detach().log_softmax(1)).sum(1).mean()
    optimizer = torch.optim.SGD([logits], lr=1)
    totals = train_step(lambda _: logits, optimizer, torch.empty(0), labels, 0.0, label_smoothing=0.3)
    assert totals[0].item() == pytest.approx(6 * loss.item())
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(1) - wanted) / 6)


def test_long_gradients_are_clipped_channel_by_channel_and_short_ones_left() -> None:
    layer = nn.Conv2d(2, 3, 3)
    weight, bias = layer.weight, layer.get_parameter("bias")
    lengths = weight.detach().flatten(1).norm(dim=1)
    # Of the first channel long, of the second just within the bound, of the third none at all.
    wanted = torch.stack([10 * lengths[0], 0.49 * lengths[1], torch.tensor(0.0)])
    gradient = nn.functional.normalize(torch.randn(3, 18)).mul(wanted.unsqueeze(1)).view_as(weight)
    weight.grad, bias.grad = gradient.clone(), torch.full_like(bias, 1e6)
    clip_gradients_adaptively(layer.parameters(), 0.5)
    torch.testing.assert_close(weight.grad[0], gradient[0] / 20)
    assert torch.equal(weight.grad[1:], gradient[1:])
    assert (bias.grad == 1e6).all()


def test_a_channel_whose_weights_are_zero_can_learn_all_the_same() -> None:
    weight = torch.zeros(1, 4, requires_grad=True)
    weight.grad = torch.ones(1, 4)
    clip_gradients_adaptively([weight], 0.5)
    assert weight.grad.norm().item() == pytest.approx(0.0005)
