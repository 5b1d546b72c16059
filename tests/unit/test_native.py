"""The kernels against PyTorch in double precision: the same scores, the same gradients, whatever the shape."""

import copy
import ctypes
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mnist_cnn.errors import InputError
from mnist_cnn.models import MODELS, build
from mnist_cnn.native import build as kernels
from mnist_cnn.native.network import NativeNetwork, _Block

TOLERANCE = 1e-4


def randomised(network: nn.Sequential, seed: int) -> nn.Sequential:
    """Weights, biases and norms that hide no term of any formula by being 0 or 1."""
    torch.manual_seed(seed)
    for layer in network:
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


def score_gradients(shape: torch.Size) -> Tensor:
    return torch.arange(shape.numel()).reshape(shape) % 7 - 3


def passed(network: nn.Sequential, forward: Callable[[Tensor], Tensor], images: Tensor) -> dict[str, Tensor]:
    """Scores, gradients of a loss that weighs all of them, and the network's buffers afterwards."""
    scores = forward(images)
    (scores * score_gradients(scores.shape)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return {"scores": scores.detach(), **gradients, **dict(network.named_buffers())}  # type: ignore[dict-item]


def by_torch(network: nn.Sequential, images: Tensor, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    network = copy.deepcopy(network).to(dtype)
    return passed(network, lambda images: network(images).flatten(1), images.to(dtype))


def by_kernels(network: nn.Sequential, images: Tensor, threads: int = 1, batch_size: int | None = None) -> dict:
    network = copy.deepcopy(network)
    size = images.shape[1], images.shape[2], images.shape[3]
    return passed(network, NativeNetwork(network, size, batch_size or len(images), threads), images)


def largest_error(mine: dict[str, Tensor], theirs: dict[str, Tensor], floor: float = 1) -> float:
    """Relative to each result's size, or to the ``floor`` for those that are smaller."""
    assert mine.keys() == theirs.keys()
    return max(
        float((mine[name].double() - expected.double()).norm() / (expected.double().norm() + floor))
        for name, expected in theirs.items()
    )


def usual_errors(
    network: nn.Sequential, size: tuple[int, int, int], images: int, batch_size: int, by_input: bool = False
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
        floor = float(score_gradients(exact["scores"].shape).double().norm()) if by_input else 1
        mine.append(largest_error(by_kernels(network, inputs, batch_size=batch_size), exact, floor))
        of_torch.append(largest_error(by_torch(network, inputs, torch.float32), exact, floor))
    return statistics.median(mine), statistics.median(of_torch)


def same_bytes(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(first.values(), second.values(), strict=True))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("images", [48, 41])
def test_every_model_is_computed_as_by_pytorch(name: str, images: int) -> None:
    mine, _ = usual_errors(build(name, 0.0), (1, 28, 28), images, images)
    assert mine < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_threads_gives_the_same_bytes(name: str) -> None:
    network = randomised(build(name), seed=2)
    inputs = torch.rand(75, 1, 28, 28)
    results = []
    for threads in (1, 2, 3, 7):
        torch.manual_seed(3)
        results.append(by_kernels(network, inputs, threads))
    assert all(same_bytes(results[0], other) for other in results[1:])


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Sequential, tuple[int, int, int]]:
    """Any row of blocks that the kernels say they know, and the size of its images."""
    channels, height, width = size = draw(st.integers(1, 5)), draw(st.integers(5, 13)), draw(st.integers(5, 13))
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(0, 3))):
        kernel, padding, outputs = draw(st.sampled_from([1, 3])), draw(st.integers(0, 2)), draw(st.integers(1, 13))
        shrunk = height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1
        if min(shrunk) < 2:
            break
        sections = draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == outputs % n == 0]))
        bias = draw(st.booleans())
        layers.append(nn.Conv2d(channels, outputs, kernel, padding=padding, groups=sections, bias=bias))
        channels, (height, width) = outputs, shrunk
        after = draw(st.sampled_from(["", "n", "r", "nr", "p", "rp", "nrp"]))
        layers += [nn.BatchNorm2d(channels)] * ("n" in after) + [nn.ReLU()] * ("r" in after)
        if "p" in after:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    classes = draw(st.integers(1, 7))
    if height == width and draw(st.booleans()):
        layers.append(nn.Conv2d(channels, classes, (height, width)))
    else:
        layers += [nn.Conv2d(channels, classes, 1), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers), size


@pytest.mark.parametrize("sections", [2, 6])
def test_a_convolution_in_sections_is_computed_as_by_pytorch(sections: int) -> None:
    # Wide enough to be computed by points; with and without biases.
    network = nn.Sequential(
        *(nn.Conv2d(1, 6, 3), nn.ReLU()),
        *(nn.Conv2d(6, 12, 3, padding=1, groups=sections, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(12, 6, 1, groups=sections), nn.Conv2d(6, 6, 3, groups=sections), nn.ReLU()),
        *(nn.Conv2d(6, 10, 1), nn.AdaptiveAvgPool2d(1)),
    )
    mine, _ = usual_errors(network, (1, 20, 20), 41, 48)
    assert mine < TOLERANCE


@settings(max_examples=60)
@given(drawn=networks(), images=st.integers(2, 40), spare=st.integers(0, 40))
def test_any_row_of_blocks_is_computed_as_by_pytorch(
    drawn: tuple[nn.Sequential, tuple[int, int, int]], images: int, spare: int
) -> None:
    network, size = drawn
    # Batch norm makes some gradients exactly zero, and what is found of them is the rounding of a thousand summands; of
    # a channel that hardly varies it magnifies all rounding, and PyTorch in float32 is then as far off.
    mine, of_torch = usual_errors(network, size, images, images + spare, by_input=True)
    assert mine < max(10 * TOLERANCE, 3 * of_torch)


def test_steps_do_not_disturb_each_other() -> None:
    # A large batch, then the last and smaller one of an epoch: what is left in memory must not be seen.
    network = randomised(build("model_5", 0.0), seed=4)
    large, small = torch.rand(64, 1, 28, 28), torch.rand(19, 1, 28, 28)
    native = NativeNetwork(network, (1, 28, 28), 64)
    native(large).sum().backward()
    network.zero_grad()
    fresh = copy.deepcopy(network)
    mine = passed(network, native, small)
    theirs = passed(fresh, NativeNetwork(fresh, (1, 28, 28), 64), small)
    assert same_bytes(mine, theirs)


def test_parameters_are_read_and_left_where_they_are() -> None:
    network = randomised(build("model_2", 0.0), seed=5)
    inputs = torch.rand(16, 1, 28, 28)
    native = NativeNetwork(network, (1, 28, 28), 16)
    before = native(inputs)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.9)
    assert not torch.equal(native(inputs), before)
    torch.testing.assert_close(native(inputs), network(inputs))


# In a process of its own, which can be ended where it hangs.
INTERRUPTED = """
import torch
from torch import nn
from mnist_cnn.native.network import NativeNetwork

native = NativeNetwork(nn.Sequential(nn.Conv2d(1, 4, 8)), (1, 8, 8), 48, threads=3)
inputs = torch.rand(48, 1, 8, 8)
expected, forward = native.evaluate(inputs), native._kernels.forward

class Interrupted:
    def forward(*arguments):
        if arguments[-2] == 0:
            raise KeyboardInterrupt
        forward(*arguments)

kernels, native._kernels = native._kernels, Interrupted
try:
    native.evaluate(inputs)
except KeyboardInterrupt:
    native._kernels = kernels
    print("interrupted", torch.equal(native.evaluate(inputs), expected))
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
    native = NativeNetwork(nn.Sequential(convolution, nn.Dropout(rate)), (channels, 1, 1), images)
    torch.manual_seed(seed)
    return torch.stack([native(torch.ones(images, channels, 1, 1)).detach() for _ in range(steps)])


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
    native = NativeNetwork(network, (2, 8, 8), 33)

    def loss() -> Tensor:
        torch.manual_seed(7)
        return native(inputs).square().sum()

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


# ---- What is refused, and how the kernels come to be


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ([nn.Linear(4, 10)], "Linear"),
        ([nn.ReLU(), nn.Conv2d(1, 10, 1)], "ReLU"),
        ([nn.Conv2d(1, 10, 1), nn.ReLU(), nn.BatchNorm2d(10)], "BatchNorm2d"),
        ([nn.Conv2d(1, 10, 1), nn.Sigmoid()], "Sigmoid"),
        ([nn.Conv2d(1, 10, 5, padding=2)], "Conv2d"),
        ([nn.Conv2d(1, 10, 3, stride=2)], "Conv2d"),
        ([nn.Conv2d(1, 10, 3, dilation=2)], "Conv2d"),
        ([nn.Conv2d(2, 10, 1)], "Conv2d"),
        (2 * [nn.Conv2d(1, 1, 1)], "at one place"),
        ([nn.Conv2d(1, 10, 1), nn.BatchNorm2d(10, affine=False)], "BatchNorm2d"),
        ([nn.Conv2d(1, 10, 1), nn.BatchNorm2d(10, track_running_stats=False)], "BatchNorm2d"),
        ([nn.Conv2d(1, 10, 1), nn.MaxPool2d(3)], "MaxPool2d"),
        ([nn.Conv2d(1, 10, 1), nn.AvgPool2d(2)], "AvgPool2d"),
        ([nn.Conv2d(1, 10, 1), nn.AdaptiveAvgPool2d(2)], "AdaptiveAvgPool2d"),
        ([nn.Conv2d(1, 10, 1)], "28 x 28"),
    ],
)
def test_what_the_kernels_do_not_know_is_refused_by_name(layers: list[nn.Module], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        NativeNetwork(nn.Sequential(*layers), (1, 28, 28), 16)


def test_both_sides_agree_on_the_structure() -> None:
    size = kernels.load().block_size
    size.restype = ctypes.c_size_t
    assert size() == ctypes.sizeof(_Block)


def test_kernels_are_compiled_once_an_environment(tmp_path: Path) -> None:
    # Two processes at the same time, in an environment that has no kernels yet.
    script = (
        f"import sys; sys.prefix = {str(tmp_path)!r}; "
        "from mnist_cnn.native import build; print(build.load().block_size())"
    )
    command = [sys.executable, "-c", script]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sizes = {process.communicate()[0].strip() for process in both}
    assert sizes == {str(ctypes.sizeof(_Block))}
    [library] = (tmp_path / "cache" / "mnist_cnn").iterdir()
    made = library.stat().st_mtime_ns
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() in sizes
    assert library.stat().st_mtime_ns == made


def test_a_compiler_that_fails_is_told_of_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.c"
    broken.write_text("int forward(void) { return nothing; }\n")
    monkeypatch.setattr(kernels, "_SOURCE", broken)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    kernels.load.cache_clear()
    with pytest.raises(InputError) as error:
        kernels.load()
    assert "nothing" in str(error.value)
    assert str(error.value).endswith("; train.engine: torch does without them")
    assert len(str(error.value).splitlines()) == 1
    assert list((tmp_path / "cache" / "mnist_cnn").iterdir()) == []
