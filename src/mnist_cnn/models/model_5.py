"""Model 5: the parameters moved to where they help; unpadded convolutions after the pool. 7,778 parameters."""

from mnist_cnn.layers import Network, conv1, conv3, global_average, pool, stack
from mnist_cnn.layers import conv_norm_drop_relu as conv


def network() -> Network:
    """``(N, 1, 28, 28)`` float images to ``(N, 10)`` logits."""
    return stack(
        conv(1, 8), conv(8, 12), pool(),  # 12 x 14 x 14
        conv1(12, 8, padding=1),  # 8 x 16 x 16
        conv(8, 8, 0), conv(8, 8, 0), conv(8, 12, 0), conv(12, 12, 0), conv(12, 12, 0),  # 12 x 6 x 6
        conv3(12, 16, 0), global_average(), conv1(16, 10),  # 10 x 1 x 1
    )  # fmt: skip
