"""Model 3: model 2 with batch norm, to narrow the gap between training and test. 14,586 parameters."""

from torch import nn

from mnist_cnn.layers import Network, conv1, conv3, conv_norm_relu, conv_relu, pool, stack


def network() -> Network:
    """``(N, 1, 28, 28)`` float images to ``(N, 10)`` logits."""
    return stack(
        conv_norm_relu(1, 6), conv_relu(6, 12), pool(),  # 12 x 14 x 14
        conv1(12, 6), conv_norm_relu(6, 12), conv_norm_relu(12, 24), pool(),  # 24 x 7 x 7
        conv1(24, 6), conv_norm_relu(6, 12), conv3(12, 16),  # 16 x 7 x 7
        nn.Conv2d(16, 10, kernel_size=7),  # 10 x 1 x 1
    )  # fmt: skip
