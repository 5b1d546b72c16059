"""Whether this machine can do what the settings ask for, before anything runs."""

import copy

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
    for name, recipe in settings.models.items():
        with about(f"models.{name}"):
            outputs = _activation_bytes(build(name, recipe.dropout)) or [0]
            _check_memory("batch_size", recipe.batch_size, sum(outputs), memory)
        with about(f"evaluate, of {name}"):
            _check_memory("batch_size", settings.evaluate.batch_size, max(outputs), memory)


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
    copied = copy.deepcopy(network).eval()
    for layer in copied.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, output: sizes.append(output.numel() * output.element_size()))
    with torch.no_grad():
        copied(torch.zeros(1, 1, IMAGE_SIDE, IMAGE_SIDE))
    return sizes


def _memory_bytes(device: torch.device) -> int:
    """All memory that a device has; the processor's where it shares it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)
