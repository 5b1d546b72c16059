"""From images to scores, as ``train.engine`` says: by the kernels in ``native`` or by PyTorch."""

import copy
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from mnist_cnn.errors import InputError
from mnist_cnn.layers import Network, set_dropout
from mnist_cnn.native.network import NativeNetwork, supports

# From normalised images (N, 1, 28, 28) float32 to scores (N, 10) float32.
Forward: TypeAlias = Callable[[Tensor], Tensor]

# How far scores of the kernels may be from PyTorch's in double precision, relative to these; float32 gives a hundredth
# of it. Where a channel hardly varies, batch norm magnifies all rounding: there PyTorch's own distance counts.
_TOLERANCE, _TIMES_AS_FAR = 1e-3, 3.0


class Compute(NamedTuple):
    """Where and how to compute.

    ``engine`` is "native", "torch", or "auto" as long as no network has been looked at: see ``choose_engine``.
    ``threads`` is for the native engine alone, whose results do not depend on it. ``precision`` is that of
    PyTorch's forward and backward pass in training; weights, and the native engine, are float32.
    """

    device: torch.device
    engine: str = "torch"
    precision: str = "float32"
    threads: int = 1


class Choice(NamedTuple):
    """The engine decided on, and that in a line for the user."""

    compute: Compute
    told: str


def choose_engine(network: nn.Module, compute: Compute) -> Choice:
    """The kernels where they compute the whole network, PyTorch elsewhere; the network alone decides.

    Raises:
        InputError: the kernels were asked for by name and do not compute this network.
    """
    if compute.engine == "torch":
        return Choice(compute, "PyTorch computes, as train.engine: torch says")
    device = compute.device.type
    reason = supports(network) if device == "cpu" else f"the kernels know the device cpu, not {device}"
    if reason is None:
        return Choice(compute._replace(engine="native"), f"the kernels compute, in {compute.threads} threads")
    if compute.engine == "native":
        raise InputError(f"train.engine: native cannot compute this network: {reason}; train.engine: auto or torch can")
    return Choice(compute._replace(engine="torch"), f"PyTorch computes: {reason}")


def training_pass(network: nn.Module, batch_size: int, compute: Compute) -> Forward:
    """A network's forward pass in training mode, differentiable; the network must be on the device."""
    if compute.engine == "native":
        return _native(network, batch_size, compute)
    # Channels last is what the processor's bfloat16 kernels want; elsewhere it is the fastest or equal. Code of a
    # network's own may count on the usual order, in ``view`` for instance.
    order = torch.channels_last if is_of_pytorchs_layers(network) else torch.contiguous_format
    network.to(memory_format=order)  # type: ignore[call-overload]
    # Each weight is used once a pass: there is nothing to cache, and a captured graph must not.
    autocast = {"enabled": compute.precision == "bfloat16", "cache_enabled": False}

    def forward(inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16, **autocast):
            scores: Tensor = network(inputs.contiguous(memory_format=order))
        return scores.float()

    return forward


def is_of_pytorchs_layers(network: nn.Module) -> bool:
    """Whether nothing of a network is code of its own, and all of it is for images."""
    of_pytorch = all(type(m) is Network or type(m).__module__.startswith("torch.nn.") for m in network.modules())
    return of_pytorch and all(weight.ndim < 5 for weight in network.parameters())


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


def check_engine(network: nn.Module, inputs: Tensor, compute: Compute) -> None:
    """Compare the kernels with PyTorch on a batch, in training and in evaluation mode, before they are trusted.

    Dropout, whose random numbers differ, is left out of both. Neither the network nor random state is touched. Scores
    that are not finite by PyTorch either are no matter of engines: they are left to those who watch over a run.

    Args:
        inputs: normalised images ``(N, 1, 28, 28)``; a single one is compared in evaluation mode alone, because batch
            norm may need more.

    Raises:
        InputError: the scores differ by more than rounding.
    """
    if compute.engine != "native":
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for training, mode in ((True, "training"), (False, "evaluation"))[len(inputs) < 2 :]:
            ours, theirs, exact = (copy.deepcopy(network).train(training) for _ in range(3))
            for other in (ours, theirs, exact):
                set_dropout(other, 0.0)
            kernels = _native(ours, len(inputs), compute)
            mine = kernels.forward(inputs) if training else kernels.evaluate(inputs)
            by_torch, expected = theirs(inputs).flatten(1), exact.double()(inputs.double()).flatten(1)
            if not by_torch.isfinite().all():
                continue
            distance = _distance(mine, expected)
            # Written so that NaN is refused as well.
            if not distance <= max(_TOLERANCE, _TIMES_AS_FAR * _distance(by_torch, expected)):
                raise InputError(
                    f"the kernels compute other scores than PyTorch in {mode} mode (relative distance {distance:.2g}): "
                    "train.engine: torch does without them"
                )


def _distance(scores: Tensor, expected: Tensor) -> float:
    """Relative to what is expected, or to 1 where that is smaller."""
    return float((scores.double() - expected).norm() / (expected.norm() + 1))


def _native(network: nn.Module, batch_size: int, compute: Compute) -> NativeNetwork:
    return NativeNetwork(network, (1, 28, 28), batch_size, compute.threads)
