"""The few blocks that the models are written with. What other models share goes into modules beside this file.

Every convolution has a bias, and every 3x3 convolution keeps the size of its input unless it is told ``padding=0``,
except in ``conv_no_bias_norm_drop_relu`` and ``depthwise_separable``. Dropout layers have the rate 0 here: a model's
recipe sets it.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd


def conv3(inputs: int, outputs: int, padding: int = 1) -> nn.Conv2d:
    """3x3 convolution from ``inputs`` to ``outputs`` channels."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=padding)


def conv1(inputs: int, outputs: int, padding: int = 0) -> nn.Conv2d:
    """1x1 convolution: mixes channels, looks at one position."""
    return nn.Conv2d(inputs, outputs, kernel_size=1, padding=padding)


def conv_relu(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """3x3 convolution, ReLU."""
    return conv3(inputs, outputs), nn.ReLU()


def conv_norm_relu(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """3x3 convolution, batch norm, ReLU."""
    return conv3(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU()


def norm_drop_relu(channels: int) -> tuple[nn.Module, ...]:
    """Batch norm, dropout, ReLU."""
    return nn.BatchNorm2d(channels), nn.Dropout(0.0), nn.ReLU()


def conv_norm_drop_relu(inputs: int, outputs: int, padding: int = 1) -> tuple[nn.Module, ...]:
    """3x3 convolution, batch norm, dropout, ReLU."""
    return conv3(inputs, outputs, padding), *norm_drop_relu(outputs)


def conv_no_bias_norm_drop_relu(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """3x3 convolution without padding and bias, batch norm, dropout, ReLU. Batch norm would subtract a bias again."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, bias=False), *norm_drop_relu(outputs)


def depthwise_separable(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A depthwise 3x3 convolution and a 1x1 convolution, neither padded nor biased, each with what follows it.

    Source: "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017,
    https://arxiv.org/abs/1704.04861
    """
    depthwise = nn.Conv2d(inputs, inputs, kernel_size=3, groups=inputs, bias=False)
    pointwise = nn.Conv2d(inputs, outputs, kernel_size=1, bias=False)
    return depthwise, *norm_drop_relu(inputs), pointwise, *norm_drop_relu(outputs)


def pool() -> nn.MaxPool2d:
    """2x2 max pooling: halves height and width."""
    return nn.MaxPool2d(2)


def global_average() -> nn.AdaptiveAvgPool2d:
    """Average over all positions of each channel: ``(N, C, H, W)`` to ``(N, C, 1, 1)``."""
    return nn.AdaptiveAvgPool2d(1)


class Network(nn.Sequential):
    """Layers in order, from ``(N, 1, 28, 28)`` images to ``(N, 10)`` logits."""

    def forward(self, input: Tensor) -> Tensor:
        """Logits ``(N, 10)``: the last layer's ``(N, 10, 1, 1)`` without its positions."""
        logits: Tensor = super().forward(input)
        return logits.flatten(1)


def stack(*parts: nn.Module | Iterable[nn.Module]) -> Network:
    """One flat network of the layers and blocks in order; the last gives ``(N, 10, 1, 1)``."""
    return Network(*(layer for part in parts for layer in ([part] if isinstance(part, nn.Module) else part)))


def set_dropout(network: nn.Module, rate: float) -> int:
    """Give every layer of a network that drops out the ``rate``, in [0, 1); returns how many there are.

    Those are the dropout layers of every kind, attention, and recurrent layers of more than one level.
    """
    count = 0
    for layer in network.modules():
        if isinstance(layer, _DropoutNd):
            layer.p = rate
        elif isinstance(layer, nn.MultiheadAttention) or (isinstance(layer, nn.RNNBase) and layer.num_layers > 1):
            layer.dropout = rate
        else:
            continue
        count += 1
    return count


def initialise(network: nn.Module) -> None:
    """Draw every convolution's weights from the Kaiming normal distribution and set its bias, if any, to zero.

    With PyTorch's own, narrower initialisation model_1, nine convolutions deep without batch norm, does not
    begin to learn: its loss stays at ln 10. Layers of other kinds keep PyTorch's own.

    Source: "Delving Deep into Rectifiers", 2015, https://arxiv.org/abs/1502.01852
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
