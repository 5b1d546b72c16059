"""Where and how networks are computed: device, engine, precision, threads."""

from typing import NamedTuple

import torch
from torch import nn

from mnist_cnn.common.errors import InputError
from mnist_cnn.engine import native


class ExecutionConfig(NamedTuple):
    """Where and how to compute.

    ``engine`` is "native", "torch", or "auto" as long as no network has been looked at: see ``choose_engine``.
    ``threads`` is for the native engine alone, whose results do not depend on it. ``precision`` is that of
    PyTorch's forward and backward pass in training; weights, and the native engine, are float32.
    """

    device: torch.device
    engine: str = "torch"
    precision: str = "float32"
    threads: int = 1


class EngineChoice(NamedTuple):
    """The configuration with an engine decided on, and the reason in a line for the user."""

    execution: ExecutionConfig
    reason: str


def choose_engine(network: nn.Module, execution: ExecutionConfig) -> EngineChoice:
    """The kernels where they support the whole network, PyTorch elsewhere.

    Network, device and whether a compiler is installed decide; nothing else does.

    Raises:
        InputError: the kernels were asked for by name and cannot compute this network here.
    """
    if execution.engine == "torch":
        return EngineChoice(execution, "PyTorch, as train.engine: torch says")
    device = execution.device.type
    refusal = native.supports(network) if device == "cpu" else f"the kernels support the device cpu, not {device}"
    if refusal is None:
        chosen = execution._replace(engine="native")
        return EngineChoice(chosen, f"native kernels, {execution.threads} threads")
    if execution.engine == "native":
        raise InputError(
            f"train.engine: native cannot compute this network: {refusal}; train.engine: auto or torch can"
        )
    return EngineChoice(execution._replace(engine="torch"), f"PyTorch: {refusal}")
