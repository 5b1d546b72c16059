"""Model 7: model 6's shape; after the pool, depthwise-separable convolutions. 3,750 parameters."""

from mnist_cnn.layers import Network, conv1, global_average, pool, stack
from mnist_cnn.layers import conv_no_bias_norm_drop_relu as conv
from mnist_cnn.layers import depthwise_separable as separable


def network() -> Network:
    """``(N, 1, 28, 28)`` float images to ``(N, 10)`` logits."""
    return stack(
        conv(1, 6), conv(6, 10), pool(),  # 10 x 12 x 12
        separable(10, 20), separable(20, 24), separable(24, 24), separable(24, 24),  # 24 x 4 x 4
        global_average(), conv1(24, 10),  # 10 x 1 x 1
    )  # fmt: skip
