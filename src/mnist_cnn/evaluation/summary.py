"""The size of a network, and how much of an image it sees."""

import copy

import torch
from torch import nn

from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.layers import Network

_SEQUENTIAL = {nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.BatchNorm2d, nn.Dropout, nn.ReLU}


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def receptive_field(network: nn.Module) -> int | None:
    """Side, in pixels, of the square of the image that one position of the last convolution sees.

    None where it does not follow from the layers, because they are no plain sequence, or see no squares.

    The last convolution is the last one over positions: a 1x1 convolution that follows a global average
    mixes channels of the whole image and is left out. Sides above 28 reach into the padding.

    Source: "Computing Receptive Fields of Convolutional Neural Networks", 2019,
    https://doi.org/10.23915/distill.00021
    """
    if type(network) is not Network or not all(type(x) in _SEQUENTIAL and _sees_squares(x) for x in network):
        return None
    field = jump = seen = 1
    outputs = torch.zeros(1, 1, IMAGE_SIDE, IMAGE_SIDE)
    with torch.no_grad():
        for layer in copy.deepcopy(network).cpu().eval():
            inputs, outputs = outputs, layer(outputs)
            if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                continue
            field += _side(getattr(layer, "dilation", 1)) * (_side(layer.kernel_size) - 1) * jump
            jump *= _side(layer.stride)
            if isinstance(layer, nn.Conv2d) and inputs.shape[-1] > 1:
                seen = field
    return seen


def _sees_squares(layer: nn.Module) -> bool:
    """Whether a layer does to rows what it does to columns, and averages over all positions if it is adaptive."""
    sizes = (getattr(layer, name, 1) for name in ("kernel_size", "stride", "dilation"))
    adaptive = isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size not in (1, (1, 1))
    return not adaptive and all(isinstance(size, int) or len(set(size)) == 1 for size in sizes)


def _side(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else size[0]
