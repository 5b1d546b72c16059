"""The kernels against PyTorch in double precision: the same logits, the same gradients, whatever the shape."""

import copy
import ctypes
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune, spectral_norm
from torch.nn.utils.parametrizations import weight_norm

from mnist_cnn.common.errors import InputError
from mnist_cnn.engine import native
from mnist_cnn.engine.native import build as kernels
from mnist_cnn.engine.native.network import _Block
from mnist_cnn.layers import Network, set_dropout
from mnist_cnn.models import build
from tests.helpers import ROOT

TOLERANCE = 1e-4
STORY = [f"model_{number}" for number in range(1, 8)]
Size = tuple[int, int, int]

Kind = TypeVar("Kind", bound=nn.Module)


def randomised(network: Kind, seed: int) -> Kind:
    """Weights, biases and norms that hide no term of any formula by being 0 or 1."""
    torch.manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.normal_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
            assert layer.running_mean is not None
            nn.init.normal_(layer.running_mean)
    return network


def logit_gradients(shape: torch.Size) -> Tensor:
    return torch.arange(shape.numel()).reshape(shape) % 7 - 3


def passed(network: nn.Module, forward: Callable[[Tensor], Tensor], images: Tensor) -> dict[str, Tensor]:
    """Logits, gradients of a loss that weighs all of them, and the network's buffers afterwards."""
    logits = forward(images)
    (logits * logit_gradients(logits.shape)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return {"logits": logits.detach(), **gradients, **dict(network.named_buffers())}  # type: ignore[dict-item]


def by_torch(network: nn.Module, images: Tensor, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    network = copy.deepcopy(network).to(dtype)
    return passed(network, lambda images: network(images).flatten(1), images.to(dtype))


def by_kernels(network: nn.Module, images: Tensor, threads: int = 1, batch_size: int | None = None) -> dict:
    network = copy.deepcopy(network)
    return passed(network, compiled(network, images, batch_size, threads), images)


def compiled(
    network: nn.Module, images: Tensor, batch_size: int | None = None, threads: int = 1
) -> native.NativeNetwork:
    """The network by the kernels, for batches as large as this one or of a ``batch_size``."""
    _, channels, height, width = images.shape
    return native.compile(network, batch_size or len(images), threads, (channels, height, width))


def largest_error(mine: dict[str, Tensor], theirs: dict[str, Tensor], floor: float = 1) -> float:
    """Relative to each result's size, or to the ``floor`` for those that are smaller."""
    assert mine.keys() == theirs.keys()
    return max(
        float((mine[name].double() - expected.double()).norm() / (expected.double().norm() + floor))
        for name, expected in theirs.items()
    )


def usual_errors(
    network: nn.Module, size: Size, images: int, batch_size: int, by_input: bool = False
) -> tuple[float, float]:
    """Of the kernels and of PyTorch in float32: the median of five draws of weights and images.

    Once in a while a pooling window or ReLU is so near its point of decision that rounding decides it.

    Args:
        by_input: of small results the error relative to the gradient that went in.
    """
    mine, of_torch = [], []
    for seed in range(5):
        randomised(network, seed)
        inputs = torch.rand(images, *size)
        exact = by_torch(network, inputs)
        floor = float(logit_gradients(exact["logits"].shape).double().norm()) if by_input else 1
        mine.append(largest_error(by_kernels(network, inputs, batch_size=batch_size), exact, floor))
        of_torch.append(largest_error(by_torch(network, inputs, torch.float32), exact, floor))
    return statistics.median(mine), statistics.median(of_torch)


def same_bytes(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(first.values(), second.values(), strict=True))


@pytest.mark.parametrize("name", STORY)
@pytest.mark.parametrize("images", [48, 41])
def test_every_model_is_computed_as_by_pytorch(name: str, images: int) -> None:
    mine, _ = usual_errors(build(name), (1, 28, 28), images, images)
    assert mine < TOLERANCE


@pytest.mark.parametrize("name", STORY)
def test_any_number_of_threads_gives_the_same_bytes(name: str) -> None:
    network = randomised(build(name), seed=2)
    set_dropout(network, 0.1)
    inputs = torch.rand(75, 1, 28, 28)
    results = []
    for threads in (1, 2, 3, 7):
        torch.manual_seed(3)
        results.append(by_kernels(network, inputs, threads))
    assert all(same_bytes(results[0], other) for other in results[1:])


Drawn = tuple[nn.Sequential, Size]


def is_odd(draw: st.DrawFn, odd: bool) -> bool:
    """Whether this option is one that the kernels do not support: seldom, so that many networks have one alone."""
    return odd and draw(st.integers(0, 4)) == 0


@st.composite
def networks(draw: st.DrawFn, odd: bool = False) -> Drawn:
    """Sequences of all layers and options that the kernels support, and the size of their images.

    With ``odd`` any option may be one that they do not support.
    """
    channels, height, width = size = draw(st.integers(1, 5)), draw(st.integers(5, 13)), draw(st.integers(5, 13))
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(0, 3))):
        kernel, padding, outputs = draw(st.sampled_from([1, 3])), draw(st.integers(0, 2)), draw(st.integers(1, 13))
        if min(height, width) + 2 * padding - kernel < 2:
            break
        groups = draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == outputs % n == 0]))
        convolution = nn.Conv2d(
            channels,
            outputs,
            kernel,
            stride=2 if is_odd(draw, odd) else 1,
            padding=padding,
            dilation=1 + is_odd(draw, odd) if kernel == 1 or padding else 1,
            groups=groups,
            bias=draw(st.booleans()),
            padding_mode="circular" if is_odd(draw, odd) and padding < min(height, width) else "zeros",
        )
        block = [convolution, *draw(followers(outputs, odd))]
        try:
            after = nn.Sequential(*block)(torch.zeros(2, channels, height, width)).shape
        except RuntimeError:  # too small for what was drawn
            break
        # A sequence in the sequence is the same network.
        layers += [nn.Sequential(*block)] if draw(st.booleans()) else block
        channels, (height, width) = outputs, after[2:]
    return nn.Sequential(*layers, *draw(endings(channels, height, width))), size


@st.composite
def followers(draw: st.DrawFn, channels: int, odd: bool) -> list[nn.Module]:
    """What may follow a convolution."""
    after = draw(st.sampled_from(["", "n", "r", "d", "nr", "ndr", "dr", "p", "rp", "ndrp"]))
    layers: list[nn.Module] = []
    if "n" in after:
        momentum, eps = draw(st.sampled_from([0.01, 0.1, 1.0])), draw(st.sampled_from([1e-5, 1e-2]))
        layers.append(nn.BatchNorm2d(channels, eps, None if is_odd(draw, odd) else momentum))
    if "d" in after:
        layers.append(nn.Dropout(draw(st.sampled_from([0.0, 0.1, 0.7])), inplace=draw(st.booleans())))
    if "r" in after:
        layers.append(nn.LeakyReLU() if is_odd(draw, odd) else nn.ReLU(inplace=draw(st.booleans())))
    if "p" in after:
        window: Any = draw(st.sampled_from([2, (2, 2)]))
        stride, ceil_mode = 1 if is_odd(draw, odd) else window, is_odd(draw, odd)
        layers.append(nn.MaxPool2d(window, stride, 1 if is_odd(draw, odd) else 0, ceil_mode=ceil_mode))
    if odd and draw(st.booleans()):
        draw(st.randoms(use_true_random=False)).shuffle(layers)
    return layers


@st.composite
def endings(draw: st.DrawFn, channels: int, height: int, width: int) -> list[nn.Module]:
    """From a map to logits."""
    classes = draw(st.integers(1, 7))
    flat = [nn.Flatten()] * draw(st.booleans())
    if draw(st.booleans()):
        return [nn.Conv2d(channels, classes, (height, width)), *flat]
    average = draw(
        st.sampled_from([nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((1, 1)), nn.AvgPool2d((height, width))])
    )
    return [nn.Conv2d(channels, classes, 1), average, *flat]


@pytest.mark.parametrize("groups", [2, 6])
def test_grouped_convolutions_are_computed_as_by_pytorch(groups: int) -> None:
    # Wide enough for Winograd's algorithm; with and without biases.
    network = nn.Sequential(
        *(nn.Conv2d(1, 6, 3), nn.ReLU()),
        *(nn.Conv2d(6, 12, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(12, 6, 1, groups=groups), nn.Conv2d(6, 6, 3, groups=groups), nn.ReLU()),
        *(nn.Conv2d(6, 10, 1), nn.AdaptiveAvgPool2d(1)),
    )
    mine, _ = usual_errors(network, (1, 20, 20), 41, 48)
    assert mine < TOLERANCE


def assert_computed_as_by_pytorch(drawn: Drawn, images: int, spare: int) -> None:
    network, size = drawn
    # As trained networks are used, dropout included.
    randomised(network, seed=0).eval()
    inputs = torch.rand(images, *size)
    mine = compiled(network, inputs, images + spare).evaluate(inputs)
    expected = copy.deepcopy(network).double()(inputs.double()).flatten(1).detach()
    assert float((mine - expected).norm() / (expected.norm() + 1)) < TOLERANCE
    # In training, without the random numbers of dropout. Batch norm makes some gradients exactly zero, and what is
    # found of them is the rounding of a thousand summands; of a channel that hardly varies it magnifies all rounding,
    # and PyTorch in float32 is then as far off.
    set_dropout(network.train(), 0.0)
    errors, of_torch = usual_errors(network, size, images, images + spare, by_input=True)
    assert errors < max(10 * TOLERANCE, 3 * of_torch)


@settings(max_examples=60)
@given(drawn=networks(), images=st.integers(2, 40), spare=st.integers(0, 40))
def test_all_supported_layers_and_options_are_computed_as_by_pytorch(drawn: Drawn, images: int, spare: int) -> None:
    assert native.supports(*drawn) is None
    assert_computed_as_by_pytorch(drawn, images, spare)


@settings(max_examples=150)
@given(drawn=networks(odd=True))
def test_what_is_not_refused_is_computed_as_by_pytorch(drawn: Drawn) -> None:
    if native.supports(*drawn) is None:
        assert_computed_as_by_pytorch(drawn, 17, 0)


def test_steps_do_not_disturb_each_other() -> None:
    # A large batch, then the last and smaller one of an epoch: what is left in memory must not be seen.
    network = randomised(build("model_5"), seed=4)
    large, small = torch.rand(64, 1, 28, 28), torch.rand(19, 1, 28, 28)
    used = native.compile(network, 64, 1)
    used(large).sum().backward()
    network.zero_grad()
    fresh = copy.deepcopy(network)
    mine = passed(network, used, small)
    theirs = passed(fresh, native.compile(fresh, 64, 1), small)
    assert same_bytes(mine, theirs)


def test_parameters_are_read_and_left_where_they_are() -> None:
    network = randomised(build("model_2"), seed=5)
    inputs = torch.rand(16, 1, 28, 28)
    kernel_network = compiled(network, inputs)
    before = kernel_network(inputs)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.9)
    assert not torch.equal(kernel_network(inputs), before)
    torch.testing.assert_close(kernel_network(inputs), network(inputs))


# In a process of its own, which can be ended where it hangs.
INTERRUPTED = """
import torch
from torch import nn
from mnist_cnn.engine import native

network = native.compile(nn.Sequential(nn.Conv2d(1, 4, 8)), 48, 3, (1, 8, 8))
inputs = torch.rand(48, 1, 8, 8)
expected, forward = network.evaluate(inputs), network._kernels.forward

class Interrupted:
    def forward(*arguments):
        if arguments[-2] == 0:
            raise KeyboardInterrupt
        forward(*arguments)

kernels, network._kernels = network._kernels, Interrupted
try:
    network.evaluate(inputs)
except KeyboardInterrupt:
    network._kernels = kernels
    print("interrupted", torch.equal(network.evaluate(inputs), expected))
"""


def test_threads_do_not_wait_for_one_that_was_interrupted() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "interrupted True\n"


# ---- Dropout


def masks(rate: float, steps: int, images: int = 2000, channels: int = 30, seed: int = 1) -> Tensor:
    """What dropout multiplies ones with, ``(steps, images, channels)``."""
    convolution = nn.Conv2d(channels, channels, 1)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(channels)[:, :, None, None])
        assert convolution.bias is not None
        convolution.bias.zero_()
    ones = torch.ones(images, channels, 1, 1)
    network = compiled(nn.Sequential(convolution, nn.Dropout(rate)), ones)
    torch.manual_seed(seed)
    return torch.stack([network(ones).detach() for _ in range(steps)])


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_dropout_drops_its_rate_and_scales_the_rest(rate: float) -> None:
    values = masks(rate, steps=5)
    kept = values != 0
    torch.testing.assert_close(values[kept], torch.full_like(values[kept], 1 / (1 - rate)))
    # Five standard errors.
    assert abs(kept.double().mean().item() - (1 - rate)) < 5 * (rate * (1 - rate) / kept.numel()) ** 0.5


def test_dropout_is_independent_between_images_channels_and_steps() -> None:
    dropped = (masks(0.5, steps=6) == 0).double() * 2 - 1
    bound = 5 / dropped[0].numel() ** 0.5
    for step in range(5):
        assert abs((dropped[step] * dropped[step + 1]).mean().item()) < bound
    for shift in (1, 2, 3, 15, 16, 17, 64, 1000):
        assert abs((dropped[0] * dropped[0].roll(shift, 0)).mean().item()) < bound
        assert abs((dropped[0] * dropped[0].roll(shift % 30, 1)).mean().item()) < bound
    for dimension in (0, 1):
        # No image and no channel is dropped more often than chance would have it.
        means = dropped[0].mean(dimension)
        assert means.abs().max().item() < 5 / dropped[0].shape[dimension] ** 0.5


def test_dropout_layers_draw_apart_and_by_pytorchs_generator() -> None:
    first, again, other = masks(0.5, 1), masks(0.5, 1), masks(0.5, 1, seed=2)
    assert torch.equal(first, again)
    assert abs(((first == 0) == (other == 0)).double().mean().item() - 0.5) < 0.02


def test_dropout_at_0_is_none_and_draws_nothing() -> None:
    assert masks(0.0, 1).eq(1).all()
    torch.manual_seed(1)
    expected = torch.rand(1)
    masks(0.0, 1)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("relu", [[nn.ReLU()], []], ids=["relu", "no relu"])
@pytest.mark.parametrize("pool", [[nn.MaxPool2d(2)], []], ids=["pool", "no pool"])
def test_the_gradient_goes_where_the_activation_went(relu: list[nn.Module], pool: list[nn.Module]) -> None:
    # The same random numbers before and after a small step in some direction, as the gradient foretells it.
    first = [nn.Conv2d(2, 6, 3), nn.Dropout(0.5), *relu, *pool]
    network = randomised(nn.Sequential(*first, nn.Conv2d(6, 3, 1), nn.AdaptiveAvgPool2d(1)), seed=6)
    inputs = torch.rand(33, 2, 8, 8)
    forward = compiled(network, inputs)

    def loss() -> Tensor:
        torch.manual_seed(7)
        return forward(inputs).square().sum()

    loss().backward()
    weight = network[0].weight
    assert isinstance(weight, nn.Parameter) and weight.grad is not None
    direction = torch.randn_like(weight)
    with torch.no_grad():
        weight.add_(direction, alpha=1e-3)
        above = loss().item()
        weight.sub_(direction, alpha=2e-3)
        below = loss().item()
    assert (above - below) / 2e-3 == pytest.approx((weight.grad * direction).sum().item(), rel=0.02, abs=0.05)


# ---- What is refused


def conv(**options: object) -> nn.Conv2d:
    """Three by three, from one channel to ten, but for some options."""
    given: Any = {"in_channels": 1, "out_channels": 10, "kernel_size": 3} | options
    return nn.Conv2d(**given)


def changed(layer: nn.Module, change: Callable[[nn.Module], object]) -> nn.Module:
    change(layer)
    return layer


def with_weight_as_buffer(layer: nn.Module) -> None:
    weight = layer.get_parameter("weight").detach()
    del layer.weight
    layer.register_buffer("weight", weight)


def with_weight_as_attribute(layer: nn.Module) -> None:
    weight = layer.get_parameter("weight").detach().double()
    del layer.weight
    vars(layer)["weight"] = weight


def without_statistics(layer: nn.Module) -> None:
    for name in ("running_mean", "running_var"):
        setattr(layer, name, None)


class OwnConv2d(nn.Conv2d):
    """Might compute anything."""


class OwnReLU(nn.ReLU):
    """Might compute anything."""


SHARED = nn.Conv2d(1, 1, 1)


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ([nn.Linear(4, 10)], "Linear"),
        ([], "none"),
        ([nn.ReLU(), conv()], "ReLU()"),
        ([conv(), nn.ReLU(), nn.BatchNorm2d(10)], "BatchNorm2d"),
        ([conv(), nn.Sigmoid()], "Sigmoid"),
        ([conv(), nn.SiLU()], "SiLU"),
        ([conv(), nn.GroupNorm(2, 10)], "GroupNorm"),
        ([conv(), nn.Dropout2d()], "Dropout2d"),
        ([conv(), nn.ReLU6()], "ReLU6"),
        ([OwnConv2d(1, 10, 3)], "OwnConv2d"),
        ([conv(), OwnReLU()], "OwnReLU"),
        ([conv(kernel_size=5, padding=2)], "Conv2d"),
        ([conv(kernel_size=(3, 1))], "Conv2d"),
        ([conv(padding=(1, 0))], "Conv2d"),
        ([conv(padding="same")], "Conv2d"),
        ([conv(stride=2)], "Conv2d"),
        ([conv(dilation=2)], "Conv2d"),
        ([conv(in_channels=2)], "Conv2d"),
        *(([conv(padding=1, padding_mode=mode)], mode) for mode in ("reflect", "replicate", "circular")),
        ([nn.LazyConv2d(10, 3)], "LazyConv2d"),
        (2 * [SHARED], "at one place"),
        ([SHARED, changed(nn.Conv2d(1, 1, 1), lambda layer: setattr(layer, "weight", SHARED.weight))], "at one place"),
        ([weight_norm(conv())], "Conv2d"),
        ([spectral_norm(conv())], "Conv2d"),
        ([prune.random_unstructured(conv(), "weight", 0.5)], "Conv2d"),
        ([changed(conv(), lambda layer: layer.register_forward_hook(lambda *_: None))], "hook"),
        ([changed(conv(), lambda layer: layer.register_forward_pre_hook(lambda *_: None))], "hook"),
        ([changed(conv(), lambda layer: layer.register_full_backward_hook(lambda *_: None))], "hook"),
        ([changed(conv(), lambda layer: layer.register_full_backward_pre_hook(lambda *_: None))], "hook"),
        ([changed(conv(), lambda layer: setattr(layer, "forward", lambda inputs: inputs))], "hook"),
        ([changed(conv(), lambda layer: setattr(layer, "_conv_forward", lambda *inputs: inputs))], "replaced"),
        ([conv(), changed(nn.BatchNorm2d(10), lambda layer: setattr(layer, "train", lambda mode: layer))], "replaced"),
        ([changed(conv(), with_weight_as_buffer)], "tensors"),
        ([changed(conv(), with_weight_as_attribute)], "tensors"),
        ([changed(conv(), lambda layer: setattr(layer, "weight", nn.Parameter(torch.rand(10, 1, 5, 5))))], "tensors"),
        ([changed(conv(), lambda layer: setattr(layer, "bias", nn.Parameter(torch.rand(1))))], "tensors"),
        ([changed(conv(), lambda layer: layer.register_parameter("more", nn.Parameter(torch.rand(1))))], "tensors"),
        ([conv(), changed(nn.BatchNorm2d(10), without_statistics)], "tensors"),
        ([conv(), changed(nn.BatchNorm2d(10), lambda layer: setattr(layer, "weight", None))], "tensors"),
        ([conv(dtype=torch.float64)], "float32"),
        (
            [conv().to(memory_format=torch.channels_last), nn.Conv2d(10, 3, 3).to(memory_format=torch.channels_last)],
            "conti",
        ),
        ([conv(), nn.BatchNorm2d(10, affine=False)], "BatchNorm2d"),
        ([conv(), nn.BatchNorm2d(10, track_running_stats=False)], "BatchNorm2d"),
        ([conv(), nn.BatchNorm2d(10, momentum=None)], "BatchNorm2d"),
        ([conv(), nn.BatchNorm2d(8)], "BatchNorm2d"),
        ([conv(), nn.SyncBatchNorm(10)], "SyncBatchNorm"),
        ([conv(), nn.Dropout(1.0)], "Dropout"),
        ([conv(), nn.MaxPool2d(3)], "MaxPool2d"),
        ([conv(), nn.MaxPool2d(2, 1)], "MaxPool2d"),
        ([conv(), nn.MaxPool2d(2, padding=1)], "MaxPool2d"),
        ([conv(), nn.MaxPool2d(2, dilation=2)], "MaxPool2d"),
        ([conv(), nn.MaxPool2d(2, ceil_mode=True)], "MaxPool2d"),
        ([conv(), nn.MaxPool2d(2, return_indices=True)], "MaxPool2d"),
        ([conv(), nn.AvgPool2d(2)], "AvgPool2d"),
        ([conv(), nn.AvgPool2d(26, divisor_override=1)], "AvgPool2d"),
        ([conv(), nn.AdaptiveAvgPool2d(2)], "AdaptiveAvgPool2d"),
        ([conv(), nn.AdaptiveMaxPool2d(1)], "AdaptiveMaxPool2d"),
        ([conv()], "26 x 26"),
        ([conv(), nn.Flatten(), nn.ReLU()], "Flatten"),
    ],
)
def test_what_the_kernels_do_not_support_is_refused_by_name(layers: list[nn.Module], named: str) -> None:
    # So that nothing but the layer in question is unsupported.
    pooled = not layers or named in ("26 x 26", "Flatten") or "Pool" in named
    network = nn.Sequential(*layers, *([] if pooled else [nn.AdaptiveAvgPool2d(1)]))
    reason = native.supports(network)
    assert reason is not None and named in reason and len(reason.splitlines()) == 1
    with pytest.raises(ValueError) as error:
        native.compile(network, 16, 1)
    assert str(error.value) == reason


def test_hooks_of_all_modules_are_refused() -> None:
    with nn.modules.module.register_module_forward_hook(lambda *_: None):
        assert "hooks" in str(native.supports(build("model_5")))
    assert native.supports(build("model_5")) is None


class OwnNetwork(Network):
    """The layers of its parent, and a forward pass of its own."""

    def forward(self, input: Tensor) -> Tensor:
        first, *others = self.children()
        seen = first(input)
        logits: Tensor = nn.Sequential(*others)(seen + seen)
        return logits.flatten(1)


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: OwnNetwork(*layers),
        lambda layers: nn.Sequential(OwnNetwork(*layers)),
        lambda layers: nn.ModuleList(layers),
        lambda layers: changed(Network(*layers), lambda net: net.register_forward_hook(lambda *_: None)),
        lambda layers: changed(Network(*layers), lambda net: setattr(net, "forward", lambda inputs: inputs)),
        lambda layers: nn.Sequential(
            changed(nn.Sequential(*layers), lambda net: net.register_forward_hook(lambda *_: None))
        ),
    ],
)
def test_only_a_plain_sequence_of_layers_is_supported(change: Callable[[list[nn.Module]], nn.Module]) -> None:
    def layers() -> list[nn.Module]:
        return [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 26)]

    assert native.supports(Network(*layers())) is None
    reason = native.supports(change(layers()))
    assert reason is not None and len(reason.splitlines()) == 1


def test_batch_norm_of_a_single_value_is_refused_as_by_pytorch() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 5), nn.BatchNorm2d(4))
    image = torch.rand(1, 1, 5, 5)
    kernel_network = compiled(network, image, batch_size=4)
    for forward in (network, kernel_network):
        with pytest.raises(ValueError, match="more than"):
            forward(image)
    assert kernel_network.evaluate(image).isfinite().all()


# ---- What is not finite


def not_finite_by_place(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: ~tensor.isfinite() for name, tensor in tensors.items() if tensor.is_floating_point()}


@pytest.mark.parametrize("name", ["model_1", "model_3", "model_4", "model_5", "model_7"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(3, 0, 0, 0), (3, 0, 14, 13), (3, 0, 27, 27)])
def test_an_image_that_is_not_finite_has_logits_that_are_not_and_no_other_image_has(
    name: str, number: float, place: tuple[int, ...]
) -> None:
    network = randomised(build(name), seed=1)
    # Nothing is open or closed by chance alone: what is not finite meets positive and negative weights.
    images = torch.rand(21, 1, 28, 28)
    images[place] = number
    mine = compiled(network, images).evaluate(images)
    theirs = copy.deepcopy(network).eval()(images)
    assert not theirs[3].isfinite().any()
    assert torch.equal(mine.isfinite(), theirs.isfinite())


@pytest.mark.parametrize("name", ["model_1", "model_3", "model_5", "model_7"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["image", "weight", "bias", "norm"])
def test_no_result_of_what_is_not_finite_looks_finite(name: str, number: float, kind: str) -> None:
    # Each logit, gradient and statistic that is not finite by PyTorch is not by the kernels.
    network, images = randomised(build(name), seed=2), torch.rand(21, 1, 28, 28)
    convolution, norm = (
        next((layer for layer in network.children() if isinstance(layer, layers)), None)
        for layers in (nn.Conv2d, nn.BatchNorm2d)
    )
    assert convolution is not None
    if kind == "image":
        images[3, 0, 14, 14] = number
    elif kind == "weight":
        convolution.weight.data[1, 0, 1, 1] = number
    elif kind == "bias":
        if convolution.bias is None:
            return
        convolution.bias.data[1] = number
    else:
        if norm is None:
            return
        norm.weight.data[1] = number
    mine, theirs = (
        not_finite_by_place(way) for way in (by_kernels(network, images), by_torch(network, images, torch.float32))
    )
    # Of minus infinity ReLU makes 0.
    assert number == -math.inf or theirs["logits"].any()
    for key, lost in theirs.items():
        assert mine[key][lost].all(), key


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("layers", ["r", "p", "rp", "d", "dr", "drp", "nr", "nrp"])
def test_what_is_not_finite_takes_the_way_through_a_block_that_it_takes_in_pytorch(layers: str, number: float) -> None:
    # Convolutions that hand on what they get: logits, gradients and statistics must be equal, NaN for NaN.
    made = {"n": nn.BatchNorm2d(2), "d": nn.Dropout(0.0), "r": nn.ReLU(), "p": nn.MaxPool2d(2)}
    first, last = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1)
    network = nn.Sequential(first, *(made[kind] for kind in layers), last, nn.AdaptiveAvgPool2d(1))
    for convolution in (first, last):
        assert convolution.bias is not None
        nn.init.ones_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    images = torch.rand(5, 1, 4, 4) - 0.3
    images[2, 0, 1, 2] = number
    mine, theirs = by_kernels(network, images), by_torch(network, images, torch.float32)
    for name, expected in theirs.items():
        torch.testing.assert_close(mine[name].float(), expected.float(), equal_nan=True, msg=name)


def test_dropped_values_that_are_not_finite_stay_visible() -> None:
    # Half of them are multiplied with 0, the others with 2: as in PyTorch, neither makes a number of them.
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Dropout(0.5), nn.ReLU())
    inputs = torch.full((200, 1, 1, 1), math.nan)
    assert compiled(network, inputs)(inputs).isnan().all()


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_reaches_the_weights(number: float) -> None:
    network = randomised(build("model_5"), seed=3)
    logits = native.compile(network, 16, 1)(torch.rand(16, 1, 28, 28))
    gradient = torch.zeros_like(logits)
    gradient[2, 3] = number
    logits.backward(gradient)
    for name, weight in network.named_parameters():
        assert weight.grad is not None and not weight.grad.isfinite().all(), name


# ---- How the kernels come to be


def test_both_sides_agree_on_the_structure() -> None:
    size = kernels.load().block_size
    size.restype = ctypes.c_size_t
    assert size() == ctypes.sizeof(_Block)


COMPILES = """
import sys
from pathlib import Path
from mnist_cnn.engine.native import build

build._SOURCE = Path(sys.argv[1])
print(build.load().answer())
"""


def test_kernels_are_compiled_once_into_the_folder_that_the_environment_names(tmp_path: Path) -> None:
    # Two processes at the same time, and a folder that is not there yet. A small source is compiled sooner.
    source, folder = tmp_path / "small.c", tmp_path / "cache"
    source.write_text("int answer(void) { return 42; }\n")
    command = [sys.executable, "-c", COMPILES, str(source)]
    environment = os.environ | {"MNIST_CNN_CACHE": str(folder), "PYTHONPATH": str(ROOT / "src")}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["42\n", "42\n"]
    # Whichever of them was first, or both: bytes may differ by the folder in which it was compiled.
    modified = {library: library.stat().st_mtime_ns for library in folder.iterdir()}
    assert 1 <= len(modified) <= 2
    assert subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout == "42\n"
    assert {library: library.stat().st_mtime_ns for library in folder.iterdir()} == modified


def test_a_library_that_was_cut_off_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "int answer(void) { return 42; }\n"
    monkeypatch.setenv("MNIST_CNN_CACHE", str(tmp_path / "cache"))
    whole = kernels._compile(source)
    assert kernels._compiled(source) == whole
    content = whole.read_bytes()
    for damaged in (b"", content[: len(content) // 2]):
        whole.write_bytes(damaged)
        assert kernels._compiled(source) is None
        assert not whole.exists()


SMALL_TRAINING = """
import hashlib, torch
from mnist_cnn.engine import native
from mnist_cnn.models import build

torch.manual_seed(1)
network = build("model_6", 0.1)
forward = native.compile(network, 8, 1)
logits = forward(torch.rand(8, 1, 28, 28))
logits.square().sum().backward()
values = [logits.detach(), *(weight.grad for weight in network.parameters())]
print(native.rounding(), hashlib.sha256(b"".join(value.numpy().tobytes() for value in values)).hexdigest())
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names processors of one kind")
def test_processors_of_one_class_give_the_same_bits(tmp_path: Path) -> None:
    def result(processor: str) -> tuple[str, str]:
        chosen = f"from mnist_cnn.engine.native import build\nbuild._OPTIONS[1] = '-mcpu={processor}'\n"
        environment = os.environ | {"ATEN_CPU_CAPABILITY": "avx2", "PYTHONPATH": str(ROOT / "src")}
        if processor != "native":  # which the environment has
            environment["MNIST_CNN_CACHE"] = str(tmp_path)
        command = [sys.executable, "-c", chosen + SMALL_TRAINING]
        ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        rounding, _, digest = ended.stdout.strip().rpartition(" ")
        return rounding, digest

    native, haswell, without = map(result, ("native", "x86_64_v3", "x86_64"))
    assert haswell[0] == "with FMA" and without[0] == "without FMA" and haswell[1] != without[1]
    assert native == (haswell if native[0] == haswell[0] else without)


@pytest.fixture
def no_kernels_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where an environment without kernels would have them."""
    monkeypatch.delenv("MNIST_CNN_CACHE", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    kernels.load.cache_clear()
    yield tmp_path / "cache" / "mnist_cnn"
    kernels.load.cache_clear()


def test_a_compiler_that_fails_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_kernels_yet: Path
) -> None:
    broken = tmp_path / "broken.c"
    broken.write_text("int forward(void) { return nothing; }\n")
    monkeypatch.setattr(kernels, "_SOURCE", broken)
    with pytest.raises(InputError, match="nothing.*train.engine: torch") as error:
        kernels.load()
    assert len(str(error.value).splitlines()) == 1
    assert list(no_kernels_yet.iterdir()) == []


def test_without_the_compiler_no_network_is_supported(monkeypatch: pytest.MonkeyPatch, no_kernels_yet: Path) -> None:
    monkeypatch.setattr(kernels, "_COMPILER", "no-such-compiler")
    network = build("model_5")
    reason = native.supports(network)
    assert reason is not None and "no-such-compiler" in reason and len(reason.splitlines()) == 1
    with pytest.raises(InputError) as error:
        native.compile(network, 16, 1)
    assert str(error.value) == reason
    assert not no_kernels_yet.exists()
    # What the kernels do not support comes first: a compiler would not help.
    assert "Sigmoid" in str(native.supports(nn.Sequential(nn.Sigmoid())))
