"""Model 6: an early pool, then unpadded convolutions of nearly equal widths, without biases. 7,918 parameters."""

from mnist_cnn.layers import Network, conv1, global_average, pool, stack
from mnist_cnn.layers import conv_no_bias_norm_drop_relu as conv

WIDTHS = (8, 10, 14, 14, 14, 16)


def network(widths: tuple[int, ...] = WIDTHS) -> Network:
    """``(N, 1, 28, 28)`` float images to ``(N, 10)`` logits."""
    a, b, c, d, e, f = widths
    return stack(
        conv(1, a), conv(a, b), pool(),  # 10 x 12 x 12
        conv(b, c), conv(c, d), conv(d, e), conv(e, f),  # 16 x 4 x 4
        global_average(), conv1(f, 10),  # 10 x 1 x 1
    )  # fmt: skip
