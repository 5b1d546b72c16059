"""The forward pass of a network as a function, in training and in evaluation mode, by the chosen engine."""

import copy
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from mnist_cnn.common.errors import InputError
from mnist_cnn.engine import native
from mnist_cnn.engine.execution import ExecutionConfig
from mnist_cnn.layers import Network, set_dropout

# From normalised images (N, 1, 28, 28) float32 to logits (N, 10) float32.
Forward: TypeAlias = Callable[[Tensor], Tensor]

# How far logits of the kernels may be from PyTorch's in double precision, as a relative distance; rounding in float32
# gives a hundredth of it. Where a channel hardly varies, batch norm amplifies rounding: then the kernels may be three
# times as far from double precision as PyTorch's float32 is.
_TOLERANCE, _TIMES_PYTORCH = 1e-3, 3.0


def training_pass(network: nn.Module, batch_size: int, execution: ExecutionConfig) -> Forward:
    """A network's forward pass in training mode, differentiable; the network must be on the device."""
    if execution.engine == "native":
        return native.compile(network, batch_size, execution.threads)
    # Channels last is what the processor's bfloat16 kernels want; elsewhere it is the fastest or equal. A network with
    # code of its own may rely on the usual order, in ``view`` for instance.
    order = torch.channels_last if has_only_torch_layers(network) else torch.contiguous_format
    network.to(memory_format=order)  # type: ignore[call-overload]
    # Each weight is used once a pass: there is nothing to cache, and a captured graph must not.
    autocast = {"enabled": execution.precision == "bfloat16", "cache_enabled": False}

    def forward(inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16, **autocast):
            logits: Tensor = network(inputs.contiguous(memory_format=order))
        return logits.float()

    return forward


def has_only_torch_layers(network: nn.Module) -> bool:
    """Whether all modules are PyTorch's own (or ``Network``), and all weights are for images."""
    of_pytorch = all(type(m) is Network or type(m).__module__.startswith("torch.nn.") for m in network.modules())
    return of_pytorch and all(weight.ndim < 5 for weight in network.parameters())


def evaluation_pass(network: nn.Module, batch_size: int, execution: ExecutionConfig) -> Forward:
    """A network's forward pass in evaluation mode, in float32; leaves the network in the mode it was in."""
    if execution.engine == "native":
        return native.compile(network, batch_size, execution.threads).evaluate

    @torch.inference_mode()
    def forward(inputs: Tensor) -> Tensor:
        was_training = network.training
        network.eval()
        try:
            logits: Tensor = network(inputs)
        finally:
            network.train(was_training)
        return logits

    return forward


def check_engine(network: nn.Module, inputs: Tensor, execution: ExecutionConfig) -> None:
    """Compare the kernels with PyTorch on a batch, in training and in evaluation mode, before they are trusted.

    Dropout, whose random numbers differ, is left out of both. Neither the network nor random state is touched. Logits
    that are not finite by PyTorch either are not compared: training and evaluation report them.

    Args:
        inputs: normalised images ``(N, 1, 28, 28)``; a single one is compared in evaluation mode alone, because batch
            norm may need more.

    Raises:
        InputError: the logits differ by more than rounding.
    """
    if execution.engine != "native":
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for training, mode in ((True, "training"), (False, "evaluation"))[len(inputs) < 2 :]:
            ours, theirs, exact = (copy.deepcopy(network).train(training) for _ in range(3))
            for other in (ours, theirs, exact):
                set_dropout(other, 0.0)
            kernels = native.compile(ours, len(inputs), execution.threads)
            mine = kernels.forward(inputs) if training else kernels.evaluate(inputs)
            by_torch, expected = theirs(inputs).flatten(1), exact.double()(inputs.double()).flatten(1)
            if not by_torch.isfinite().all():
                continue
            distance = _distance(mine, expected)
            # Written so that NaN is refused as well.
            if not distance <= max(_TOLERANCE, _TIMES_PYTORCH * _distance(by_torch, expected)):
                raise InputError(
                    f"the kernels compute other logits than PyTorch in {mode} mode (relative distance {distance:.2g}): "
                    "train.engine: torch does without them"
                )


def _distance(logits: Tensor, expected: Tensor) -> float:
    """Relative to what is expected, or to 1 where that is smaller."""
    return float((logits.double() - expected).norm() / (expected.norm() + 1))
