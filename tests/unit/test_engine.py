"""Which engine computes a network, where its kernels lie, and that they are compared with PyTorch before use."""

import copy
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import cache_folder
from mnist_cnn.engine import native
from mnist_cnn.engine.execution import ExecutionConfig, choose_engine
from mnist_cnn.engine.native import NativeNetwork
from mnist_cnn.engine.native import build as kernels
from mnist_cnn.engine.passes import check_engine
from mnist_cnn.models import MODELS, build
from tests.helpers import CPU, NATIVE, TORCH

AUTO, CUDA = ExecutionConfig(CPU, "auto"), torch.device("cuda")
STORY = [f"model_{number}" for number in range(1, 8)]
INPUTS = torch.rand(32, 1, 28, 28, generator=torch.Generator().manual_seed(1))


class Skipping(nn.Sequential):
    """A network in whose forward pass a layer is skipped: the same layers, something else computed."""

    def forward(self, input: Tensor) -> Tensor:
        first, *others = self
        seen = first(input)
        logits: Tensor = nn.Sequential(*others)(seen + seen.flip(1)).flatten(1)
        return logits


def unsupported() -> nn.Module:
    return Skipping(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 26))


def model_5() -> nn.Module:
    return build("model_5")


@pytest.fixture
def not_loaded() -> Iterator[None]:
    """Kernels are looked for anew in this test, and again after it."""
    kernels.load.cache_clear()
    yield
    kernels.load.cache_clear()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, not_loaded: None) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(kernels, "version", missing)


@pytest.mark.parametrize("name", STORY)
def test_the_storys_models_are_computed_by_the_kernels(name: str) -> None:
    assert choose_engine(build(name), AUTO).execution == NATIVE


@pytest.mark.parametrize(
    ("network", "asked", "device", "chosen"),
    [
        (model_5, "torch", CPU, "torch"),
        (model_5, "native", CPU, "native"),
        (model_5, "auto", CUDA, "torch"),
        (unsupported, "auto", CPU, "torch"),
        (unsupported, "torch", CPU, "torch"),
    ],
)
def test_the_network_and_the_device_decide(
    network: Callable[[], nn.Module], asked: str, device: torch.device, chosen: str
) -> None:
    choice = choose_engine(network(), ExecutionConfig(device, asked, threads=2))
    assert choice.execution == ExecutionConfig(device, chosen, threads=2)
    assert len(choice.reason.splitlines()) == 1
    assert choose_engine(network(), choice.execution).execution == choice.execution


@pytest.mark.parametrize(
    ("network", "device", "reason"), [(unsupported, CPU, "Skipping"), (model_5, CUDA, "device cpu, not cuda")]
)
def test_kernels_asked_for_by_name_are_refused_with_the_way_out(
    network: Callable[[], nn.Module], device: torch.device, reason: str
) -> None:
    with pytest.raises(InputError) as error:
        choose_engine(network(), ExecutionConfig(device, "native"))
    assert len(str(error.value).splitlines()) == 1
    assert reason in str(error.value) and "train.engine: auto" in str(error.value)


@pytest.mark.usefixtures("no_compiler")
def test_without_the_compilers_package_pytorch_computes_and_the_reason_says_that_results_differ() -> None:
    choice = choose_engine(model_5(), AUTO)
    assert choice.execution == TORCH
    assert all(words in choice.reason for words in ("ziglang", "make setup", "differ"))
    assert len(choice.reason.splitlines()) == 1
    # A layer that the kernels do not know is named all the same.
    assert "Skipping" in choose_engine(unsupported(), AUTO).reason


@pytest.mark.usefixtures("no_compiler")
def test_without_the_compilers_package_kernels_asked_for_by_name_are_refused() -> None:
    with pytest.raises(InputError, match=r"train\.engine: native .*ziglang.*train\.engine: auto"):
        choose_engine(model_5(), NATIVE)
    with pytest.raises(InputError, match="ziglang"):
        native.compile(model_5(), 32, 1)


@pytest.mark.usefixtures("not_loaded")
@pytest.mark.parametrize("cache", [None, "", "kernels of mine"])
def test_kernels_are_compiled_once_into_the_environment_or_the_folder_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: str | None
) -> None:
    monkeypatch.delenv("MNIST_CNN_CACHE", raising=False)
    compiled, made = Path(kernels.load()._name), []

    def compile_anew(source: str) -> Path:
        made.append(cache_folder() / compiled.name)
        cache_folder().mkdir(parents=True)
        return Path(shutil.copy(compiled, cache_folder()))

    monkeypatch.setattr(kernels, "_compile", compile_anew)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    if cache is not None:
        monkeypatch.setenv("MNIST_CNN_CACHE", cache and str(tmp_path / cache))
    folder = tmp_path / cache if cache else tmp_path / "environment" / "cache" / "mnist_cnn"
    for _ in range(2):
        kernels.load.cache_clear()
        assert Path(kernels.load()._name) == folder / compiled.name
    assert made == [folder / compiled.name]


@pytest.mark.parametrize("name", MODELS)
def test_a_network_that_is_computed_right_passes_and_nothing_is_touched(name: str) -> None:
    network = build(name)
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    check_engine(network, INPUTS, choose_engine(network, AUTO).execution)
    assert torch.equal(torch.get_rng_state(), random) and network.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_a_network_that_would_be_computed_as_another_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if the kernels took a network for a row of its layers.
    def admit(network: nn.Module, *_: int) -> NativeNetwork:
        return NativeNetwork(nn.Sequential(*network.children()), (1, 28, 28), 32)

    monkeypatch.setattr(native, "compile", admit)
    assert native.supports(unsupported()) is not None
    with pytest.raises(InputError, match=r"training mode .*engine: torch"):
        check_engine(unsupported(), INPUTS, NATIVE)


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_each_mode_is_compared(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    right = NativeNetwork._forward

    def wrong(self: NativeNetwork, inputs: Tensor, training: bool) -> Tensor:
        return right(self, inputs, training) + (0.1 if training == (mode == "training") else 0)

    monkeypatch.setattr(NativeNetwork, "_forward", wrong)
    with pytest.raises(InputError, match=f"in {mode} mode"):
        check_engine(build("model_4"), INPUTS, NATIVE)


def test_logits_that_are_not_finite_where_pytorchs_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeNetwork, "_forward", lambda *_, **__: torch.full((32, 10), torch.nan))
    with pytest.raises(InputError, match="nan"):
        check_engine(build("model_4"), INPUTS, NATIVE)


@pytest.mark.parametrize("name", ["model_2", "model_4"])
def test_a_single_image_is_compared_in_evaluation_mode(name: str) -> None:
    check_engine(build(name), INPUTS[:1], NATIVE)


def test_a_network_whose_logits_are_not_finite_by_pytorch_either_is_left_to_the_run() -> None:
    network = build("model_4")
    torch.nn.init.constant_(next(network.parameters()), torch.nan)
    check_engine(network, INPUTS, NATIVE)
