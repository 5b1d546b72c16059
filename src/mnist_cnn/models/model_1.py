"""Model 1: a plain skeleton, wide enough to learn the task. 28,954 parameters."""

from mnist_cnn.layers import Network, conv1, conv_relu, global_average, pool, stack


def network() -> Network:
    """``(N, 1, 28, 28)`` float images to ``(N, 10)`` logits."""
    return stack(
        conv_relu(1, 12), conv_relu(12, 24), pool(),  # 24 x 14 x 14
        conv1(24, 12), conv_relu(12, 16), conv_relu(16, 32), conv_relu(32, 32), pool(),  # 32 x 7 x 7
        conv1(32, 12), conv_relu(12, 24), conv_relu(24, 32),  # 32 x 7 x 7
        conv1(32, 10), global_average(),  # 10 x 1 x 1
    )  # fmt: skip
