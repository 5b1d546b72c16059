"""One step of gradient descent."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from mnist_cnn.engine.passes import Forward


def train_step(
    forward: Forward,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    rate: float | Tensor,
    clipping: float = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """One step of gradient descent at a learning rate (a tensor on the device, where steps are captured).

    Args:
        clipping: of ``clip_gradients_adaptively``; 0 leaves gradients as they are.
        label_smoothing: this fraction of each label's weight is spread over all classes.

    Returns float64 (on mps float32) ``(2,)``: the loss summed over the batch, and the number of correct predictions.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    logits = forward(inputs)
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clipping:
        clip_gradients_adaptively([weight for group in optimizer.param_groups for weight in group["params"]], clipping)
    optimizer.step()
    correct = (logits.detach().argmax(1) == labels).sum()
    return torch.stack([loss.detach() * len(labels), correct]).to(sum_dtype(labels.device))


def sum_dtype(device: torch.device) -> torch.dtype:
    """What sums are kept in: float64, which mps does not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def clip_gradients_adaptively(weights: Iterable[Tensor], clipping: float) -> None:
    """Adaptive gradient clipping: each output channel's gradient is at most ``clipping`` times as long as its weights.

    Biases, and batch norm's scales and shifts, keep their gradients. It keeps networks without batch norm from
    diverging.

    Source: "High-Performance Large-Scale Image Recognition Without Normalization", 2021,
    https://arxiv.org/abs/2102.06171
    """
    for weight in weights:
        if weight.ndim < 2 or weight.grad is None:
            continue
        length, gradient = (torch.linalg.vector_norm(x.detach().flatten(1), dim=1) for x in (weight, weight.grad))
        # Lower bounds, so that weights near zero can still move, and a zero gradient divides nothing by zero.
        scale = (clipping * length.clamp_(min=1e-3) / gradient.clamp_(min=1e-9)).clamp_(max=1)
        weight.grad.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))
