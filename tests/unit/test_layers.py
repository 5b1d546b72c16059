"""Blocks of the networks, and their first weights."""

import math

import pytest
import torch
from torch import nn

from mnist_cnn.layers import Network, conv1, conv3, depthwise_separable, initialise, set_dropout, stack
from mnist_cnn.models import build


def test_set_dropout_sets_every_layer_of_any_kind_and_counts_them() -> None:
    layers = [
        nn.Dropout(0.1),
        nn.Dropout1d(),
        nn.Dropout2d(),
        nn.Dropout3d(),
        nn.AlphaDropout(),
        nn.FeatureAlphaDropout(),
    ]
    network = nn.Sequential(layers[0], nn.Sequential(nn.ReLU(), *layers[1:]))
    assert set_dropout(network, 0.3) == 6
    assert [layer.p for layer in layers] == [0.3] * 6
    assert set_dropout(nn.ReLU(), 0.3) == 0


def test_set_dropout_reaches_attention_and_stacked_recurrent_layers() -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.1)
    recurrent = nn.LSTM(4, 4, num_layers=2, dropout=0.1)
    assert set_dropout(nn.Sequential(encoder, recurrent, nn.GRU(4, 4)), 0.0) == 5
    assert encoder.self_attn.dropout == recurrent.dropout == encoder.dropout1.p == 0


@pytest.mark.parametrize("name", [f"model_{number}" for number in range(1, 8)])
def test_initial_weights_keep_the_size_of_the_signal(name: str) -> None:
    network = build(name)
    assert isinstance(network, Network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7)
    torch.manual_seed(0)  # one draw in some hundred is farther off
    initialise(network)
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            deviation = math.sqrt(2 / layer.weight[0].numel())
            count = layer.weight.numel()
            assert layer.weight.std().item() == pytest.approx(deviation, rel=4 / math.sqrt(2 * count))
            assert layer.weight.mean().item() == pytest.approx(0, abs=4 * deviation / math.sqrt(count))
            assert layer.bias is None or not layer.bias.any()
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 7).all()


def test_stack_lays_layers_and_blocks_flat_in_order() -> None:
    a, b, c, d = conv3(1, 2), nn.ReLU(), conv1(2, 10), nn.AdaptiveAvgPool2d(1)
    network = stack(a, (b, c), iter([d]))
    assert isinstance(network, Network)
    assert list(network) == [a, b, c, d]
    assert network(torch.rand(3, 1, 28, 28)).shape == (3, 10)


def test_a_depthwise_separable_convolution_filters_each_channel_and_then_mixes_them() -> None:
    depthwise, *_, pointwise, _, _, _ = layers = depthwise_separable(6, 8)
    assert isinstance(depthwise, nn.Conv2d) and isinstance(pointwise, nn.Conv2d)
    assert [tuple(convolution.weight.shape) for convolution in (depthwise, pointwise)] == [(6, 1, 3, 3), (8, 6, 1, 1)]
    assert depthwise.bias is pointwise.bias is None
    assert [type(layer).__name__ for layer in layers] == 2 * ["Conv2d", "BatchNorm2d", "Dropout", "ReLU"]
    assert nn.Sequential(*layers)(torch.rand(2, 6, 5, 5)).shape == (2, 8, 3, 3)
