"""Whether this machine can do what the settings ask for, before anything runs."""

import psutil
import torch
from torch import nn

from mnist_cnn.common.errors import InputError, about
from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.engine.device import resolve_device
from mnist_cnn.models import build
from mnist_cnn.settings.params import Params


def check_feasible(settings: Params) -> None:
    """Raises InputError where there is no such device, a network cannot be had as its recipe says, or memory is short.

    Memory is compared with the least that can be needed, so that nothing is refused that would work: all outputs of
    convolutions in training, which the gradients follow from, and the largest in evaluation.
    """
    device = resolve_device(settings.train.device)
    memory = _memory_bytes(device)
    halves = 2 if settings.train.precision == "bfloat16" else 1
    for name, recipe in settings.models.items():
        with about(f"models.{name}"):
            outputs = _activation_bytes(build(name, recipe.dropout)) or [0]
        in_training = min(recipe.batch_size, settings.split.train)
        _check_memory(f"models.{name}.batch_size", in_training, sum(outputs) // halves, memory)
        in_evaluation = min(settings.evaluate.batch_size, settings.split.train)
        _check_memory("evaluate.batch_size", in_evaluation, max(outputs), memory)


def _check_memory(setting: str, images: int, an_image: int, memory: int) -> None:
    """Raises InputError where so many images, of so many bytes each, take more than there is."""
    if images * an_image > memory:
        raise InputError(
            f"{setting}: {images:,} is not allowed: it takes {images * an_image / 1e9:,.0f} GB or more, and there are "
            f"{memory / 1e9:,.0f}; at most {memory // an_image:,}"
        )


def _activation_bytes(network: nn.Module) -> list[int]:
    """How much memory the output of each convolution takes, for one image, in the order in which they are computed."""
    sizes: list[int] = []
    for layer in network.eval().modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, output: sizes.append(output.numel() * output.element_size()))
    with torch.no_grad():
        network(torch.zeros(1, 1, IMAGE_SIDE, IMAGE_SIDE))
    return sizes


def _memory_bytes(device: torch.device) -> int:
    """All memory that a device has; the processor's, with what it swaps to, where it shares that."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total + psutil.swap_memory().total)
