"""Blocks of the networks; above all the hand-made dropout."""

import math

import pytest
import torch
from torch import Tensor, nn

from mnist_cnn.layers import Dropout, Network, conv1, conv3, initialise, set_dropout, stack
from mnist_cnn.models import MODELS, build

RATES = [0.013, 0.1, 0.5, 0.9]


def rounded(rate: float) -> float:
    return round(rate * 65536) / 65536


def kept(rate: float, count: int = 1 << 20) -> Tensor:
    result: Tensor = Dropout(rate)(torch.ones(count))
    return result != 0


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.double(), second.double()]))[0, 1])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(20)


@pytest.mark.parametrize("rate", RATES)
def test_dropout_zeroes_its_rate_of_the_positions(rate: float) -> None:
    survivors = kept(rate)
    deviation = math.sqrt(rate * (1 - rate) / len(survivors))
    assert survivors.double().mean() == pytest.approx(1 - rounded(rate), abs=4 * deviation)
    # Four positions share a draw: each of the four has the rate.
    for lane in survivors.view(-1, 4).double().mean(0):
        assert lane == pytest.approx(1 - rounded(rate), abs=4 * 2 * deviation)


@pytest.mark.parametrize("rate", RATES)
def test_dropout_scales_what_it_keeps_by_exactly_the_share_kept(rate: float) -> None:
    values = torch.rand(10_000) + 0.5
    result = Dropout(rate)(values)
    survivors = result != 0
    torch.testing.assert_close(result[survivors], values[survivors] / (1 - rounded(rate)))


@pytest.mark.parametrize("rate", RATES)
def test_dropout_keeps_the_expected_value(rate: float) -> None:
    values = torch.randn(1 << 20) + 2
    deviation = math.sqrt(5 * rate / (1 - rate) / len(values))
    assert Dropout(rate)(values).mean() == pytest.approx(float(values.mean()), abs=4 * deviation)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 28])
def test_dropout_decides_on_neighbours_independently(distance: int) -> None:
    survivors = kept(0.3)
    assert abs(correlation(survivors[distance:], survivors[:-distance])) < 4 / math.sqrt(len(survivors))


def test_dropout_decides_on_successive_steps_independently() -> None:
    first, second = kept(0.3), kept(0.3)
    assert abs(correlation(first, second)) < 4 / math.sqrt(len(first))


def test_dropout_draws_the_same_mask_from_the_same_seed() -> None:
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(kept(0.5, 1000))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("layer", [Dropout(0.5).eval(), Dropout(0.0), Dropout(0.0).eval()])
def test_dropout_is_the_identity_in_evaluation_mode_and_at_rate_zero(layer: Dropout) -> None:
    values = torch.randn(3, 5, 7)
    assert torch.equal(layer(values), values)


def test_dropout_lets_the_gradient_pass_where_it_let_the_value_pass() -> None:
    values = (torch.rand(50, 7) + 0.5).requires_grad_()
    result = Dropout(0.4)(values)
    result.sum().backward()
    assert values.grad is not None
    assert (result == 0).any()
    torch.testing.assert_close(result, values * values.grad)


def test_dropout_computes_in_the_type_of_its_input() -> None:
    for dtype in (torch.bfloat16, torch.float64):
        values = torch.rand(100_000, dtype=dtype) + 0.5
        result = Dropout(0.1)(values)
        survivors = result != 0
        assert result.dtype == dtype
        assert survivors.double().mean() == pytest.approx(0.9, abs=0.005)
        torch.testing.assert_close(
            result[survivors].double(), values[survivors].double() / (1 - rounded(0.1)), rtol=0.01, atol=0
        )


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (5,), (7, 3), (2, 3, 5, 5)])
def test_dropout_takes_any_shape(shape: tuple[int, ...]) -> None:
    assert Dropout(0.1)(torch.ones(shape)).shape == shape


def test_dropout_gives_the_same_in_any_memory_layout() -> None:
    values, results = torch.rand(2, 3, 5, 5), []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(1)
        results.append(Dropout(0.5)(values.contiguous(memory_format=layout)))
        assert results[-1].is_contiguous(memory_format=layout)
    assert torch.equal(*results)


def test_dropout_takes_every_rate_below_one() -> None:
    result = Dropout(1 - 1e-9)(torch.ones(1000))
    assert result.isfinite().all()


def test_set_dropout_sets_every_layer_and_counts_them() -> None:
    network = nn.Sequential(Dropout(0.1), nn.Sequential(nn.ReLU(), Dropout(0.2)))
    assert set_dropout(network, 0.3) == 2
    assert [layer.p for layer in network.modules() if isinstance(layer, Dropout)] == [0.3, 0.3]
    assert set_dropout(nn.ReLU(), 0.3) == 0


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights_keep_the_size_of_the_signal(name: str) -> None:
    network = build(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7)
    initialise(network)
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            deviation = math.sqrt(2 / layer.weight[0].numel())
            count = layer.weight.numel()
            assert layer.weight.std().item() == pytest.approx(deviation, rel=4 / math.sqrt(2 * count))
            assert layer.weight.mean().item() == pytest.approx(0, abs=4 * deviation / math.sqrt(count))
            assert layer.bias is not None
            assert not layer.bias.any()
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 7).all()


def test_stack_lays_layers_and_blocks_flat_in_order() -> None:
    a, b, c, d = conv3(1, 2), nn.ReLU(), conv1(2, 10), nn.AdaptiveAvgPool2d(1)
    network = stack(a, (b, c), iter([d]))
    assert isinstance(network, Network)
    assert list(network) == [a, b, c, d]
    assert network(torch.rand(3, 1, 28, 28)).shape == (3, 10)
