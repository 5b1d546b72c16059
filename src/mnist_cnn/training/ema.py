"""The exponential moving average (EMA) of a network's weights."""

import copy

import torch
from torch import Tensor, nn


class WeightEMA:
    """The exponential moving average of a network's weights and of batch norm's statistics, itself a ``network``.

    Its decay warms up: after n steps it is at most (1 + n) / (10 + n). The average then reaches back over a ninth of
    the steps so far, so a run's first weights are soon forgotten, in short runs too.

    PyTorch's own ``AveragedModel`` looks up all tensors at each update, which takes ten times as long, and asks the
    device for a number each time, which makes it wait.

    ``steps`` counts the updates, and ``tensors`` are all that they change.

    Args:
        followed: already where it is trained, and in its memory format: its tensors are read at each update.
        decay: in [0, 1), after the warm-up.

    Source: "Acceleration of Stochastic Approximation by Averaging", 1992, https://doi.org/10.1137/0330046; the warm-up
    is ``num_updates`` of TensorFlow's ``tf.train.ExponentialMovingAverage``,
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage
    """

    def __init__(self, followed: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(followed)
        self._decay = decay
        self.steps = 0
        # Not by the state's names, under which a weight that layers share appears several times.
        mine, theirs = ([*net.parameters(), *net.buffers()] for net in (self.network.requires_grad_(False), followed))
        self._averages, self._values = ([x.detach() for x in side if x.is_floating_point()] for side in (mine, theirs))
        self._counts, self._counters = ([x for x in side if not x.is_floating_point()] for side in (mine, theirs))

    @property
    def tensors(self) -> list[Tensor]:
        """Averages and counts, in an order that is always the same."""
        return [*self._averages, *self._counts]

    def update(self) -> None:
        """Take in the weights of one more step."""
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)
        if self._counts:
            torch._foreach_copy_(self._counts, self._counters)
        self.steps += 1
