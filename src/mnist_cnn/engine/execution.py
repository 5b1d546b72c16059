"""Where and how networks are computed: device, engine, precision, threads."""

import platform
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


def computing_class(execution: ExecutionConfig) -> str:
    """What a result's last bits follow from beside the libraries' versions: processors of a class give the same.

    The engine must have been decided on.
    """
    device = execution.device.type
    if device != "cpu":
        name = torch.cuda.get_device_name(execution.device) if device == "cuda" else platform.machine()
        return f"PyTorch in {execution.precision}, {device} {name}"
    by_torch = f"PyTorch in {execution.precision}, {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"kernels {native.rounding()}, {by_torch}" if execution.engine == "native" else by_torch


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
