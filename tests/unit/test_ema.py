"""The exponential moving average of a network's weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mnist_cnn.models import build
from mnist_cnn.training.ema import WeightEMA


@given(steps=st.integers(30, 3000), decay=st.sampled_from([0.9, 0.99, 0.998, 0.9999]))
def test_it_forgets_where_a_run_began(steps: int, decay: float) -> None:
    # Weights of 1 at the beginning, and 0 after each step.
    network = nn.Linear(1, 1)
    nn.init.ones_(network.weight)
    ema = WeightEMA(network, decay)
    nn.init.zeros_(network.weight)
    for _ in range(steps):
        ema.update()
    assert 0 <= ema.network.get_parameter("weight").item() < 1e-6


def test_a_weight_that_layers_share_is_averaged_once_a_step() -> None:
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    second.weight = first.weight
    nn.init.zeros_(first.weight)
    ema = WeightEMA(nn.Sequential(first, second), 0.5)
    nn.init.ones_(first.weight)
    ema.update()
    assert ema.network.get_parameter("0.weight").item() == pytest.approx(0.9)


def test_it_is_that_of_pytorchs_class_once_it_has_warmed_up() -> None:
    network = build("model_5")
    mine = WeightEMA(network, 0.1)
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.1), use_buffers=True)
    # That class takes the first weights as they are.
    mine.update()
    theirs.update_parameters(network)
    for step in range(4):
        network(torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(step)))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(0.9)
        mine.update()
        theirs.update_parameters(network)
    expected = theirs.module.state_dict()
    for name, tensor in mine.network.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, expected[name]), name
    assert mine.network.get_buffer("1.num_batches_tracked") == 4
