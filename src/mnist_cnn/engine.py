"""From images to scores, as ``train.engine`` says: by the kernels in ``native`` or by PyTorch."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from mnist_cnn.native.network import NativeNetwork

# From normalised images (N, 1, 28, 28) float32 to scores (N, 10) float32.
Forward: TypeAlias = Callable[[Tensor], Tensor]


class Compute(NamedTuple):
    """Where and how to compute.

    ``threads`` is for the native engine alone, whose results do not depend on it. ``precision`` is that of
    PyTorch's forward and backward pass in training; weights, and the native engine, are float32.
    """

    device: torch.device
    engine: str = "torch"
    precision: str = "float32"
    threads: int = 1


def training_pass(network: nn.Module, batch_size: int, compute: Compute) -> Forward:
    """A network's forward pass in training mode, differentiable; the network must be on the device."""
    if compute.engine == "native":
        return _native(network, batch_size, compute)
    # Channels last is what the processor's bfloat16 kernels want; elsewhere it is the fastest or equal.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=compute.precision == "bfloat16"):
            scores: Tensor = network(inputs.contiguous(memory_format=torch.channels_last))
        return scores.float()

    return forward


def evaluation_pass(network: nn.Module, batch_size: int, compute: Compute) -> Forward:
    """A network's forward pass in evaluation mode, in float32; its own mode is as before afterwards."""
    if compute.engine == "native":
        return _native(network, batch_size, compute).evaluate

    @torch.inference_mode()
    def forward(inputs: Tensor) -> Tensor:
        was_training = network.training
        network.eval()
        try:
            scores: Tensor = network(inputs)
        finally:
            network.train(was_training)
        return scores

    return forward


def _native(network: nn.Module, batch_size: int, compute: Compute) -> NativeNetwork:
    assert isinstance(network, nn.Sequential)
    return NativeNetwork(network, (1, 28, 28), batch_size, compute.threads)
