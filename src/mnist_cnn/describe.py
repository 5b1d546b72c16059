"""What a network looks like: its layer table, parameter count and receptive field."""

from typing import NamedTuple

import torch
from torch import nn
from torchinfo import ModelStatistics, summary

from mnist_cnn.layers import Network

IMAGE_SHAPE = (1, 1, 28, 28)
_ALL_LEVELS = 100
_IN_A_ROW = {nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.BatchNorm2d, nn.Dropout, nn.ReLU}


class Layer(NamedTuple):
    """One row of the layer table: kind, output shape for one image without the batch axis, parameters."""

    kind: str
    output_shape: tuple[int, ...]
    parameters: int


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def multiplications(network: nn.Module) -> int:
    """How many an image takes, forward."""
    return int(_summary(network).total_mult_adds)


def layer_table(network: nn.Module) -> str:
    """The layers with their output shapes and parameters, as text for a console."""
    return str(_summary(network))


def layers(network: nn.Module) -> list[Layer]:
    """The layers in the order in which an image passes them."""
    return [
        Layer(info.class_name, tuple(info.output_size[1:]), info.num_params)
        for info in _summary(network).summary_list
        if info.is_leaf_layer
    ]


def receptive_field(network: nn.Module) -> int | None:
    """Side, in pixels, of the square of the image that one position of the last convolution sees.

    None where it cannot be read off the layers, because they do not simply follow one another, or see no squares.

    The last convolution is the last one over positions: a 1x1 convolution that follows a global average
    mixes channels of the whole image and is left out. Sides above 28 reach into the padding.

    Source: "Computing Receptive Fields of Convolutional Neural Networks", 2019,
    https://doi.org/10.23915/distill.00021
    """
    if type(network) is not Network or not all(type(layer) in _IN_A_ROW and _sees_squares(layer) for layer in network):
        return None
    field = jump = seen = 1
    for info in _summary(network).summary_list:
        layer = info.module
        if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            continue
        field += _side(getattr(layer, "dilation", 1)) * (_side(layer.kernel_size) - 1) * jump
        jump *= _side(layer.stride)
        if isinstance(layer, nn.Conv2d) and info.input_size[-1] > 1:
            seen = field
    return seen


def _sees_squares(layer: nn.Module) -> bool:
    """Whether a layer does to rows what it does to columns, and averages over all positions if it is adaptive."""
    sizes = (getattr(layer, name, 1) for name in ("kernel_size", "stride", "dilation"))
    adaptive = isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size not in (1, (1, 1))
    return not adaptive and all(isinstance(size, int) or len(set(size)) == 1 for size in sizes)


def _side(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else size[0]


def _summary(network: nn.Module) -> ModelStatistics:
    # A blank image of its own, and evaluation mode: describing draws no random number and touches no statistics.
    return summary(
        network,
        input_data=torch.zeros(IMAGE_SHAPE),
        mode="eval",
        verbose=0,
        depth=_ALL_LEVELS,
        col_names=("output_size", "num_params"),
    )
