"""Model 4: dropout, and average pooling in place of the 7x7 convolution. 7,040 parameters."""

from torch import nn

from mnist_cnn.layers import Network, conv1, conv3, pool, stack
from mnist_cnn.layers import conv_norm_drop_relu as conv


def network() -> Network:
    """``(N, 1, 28, 28)`` float images to ``(N, 10)`` logits."""
    return stack(
        conv(1, 6), conv(6, 12), pool(),  # 12 x 14 x 14
        conv1(12, 6), conv(6, 12), conv(12, 24), pool(),  # 24 x 7 x 7
        conv1(24, 6), conv(6, 12), conv3(12, 16),  # 16 x 7 x 7
        conv1(16, 10), nn.AvgPool2d(7), conv1(10, 10),  # 10 x 1 x 1
    )  # fmt: skip
