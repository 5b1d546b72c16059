"""Which engine computes a network, and that the kernels are compared with PyTorch before they are trusted."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mnist_cnn import engine
from mnist_cnn.engine import Compute, check_engine, choose_engine
from mnist_cnn.common.errors import InputError
from mnist_cnn.models import MODELS, build
from mnist_cnn.engine.native.network import NativeNetwork, supports

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
IMAGES = torch.rand(32, 1, 28, 28, generator=torch.Generator().manual_seed(1))


class Skipping(nn.Sequential):
    """A network in whose forward pass a layer is skipped: the same layers, something else computed."""

    def forward(self, input: Tensor) -> Tensor:
        first, *others = self
        seen = first(input)
        scores: Tensor = nn.Sequential(*others)(seen + seen.flip(1)).flatten(1)
        return scores


def foreign() -> nn.Module:
    return Skipping(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 26))


@pytest.mark.parametrize("name", [f"model_{number}" for number in range(1, 8)])
def test_the_storys_models_are_computed_by_the_kernels(name: str) -> None:
    assert choose_engine(build(name), Compute(CPU, "auto")).compute.engine == "native"


@pytest.mark.parametrize(
    ("network", "asked", "device", "chosen"),
    [
        (lambda: build("model_5"), "torch", CPU, "torch"),
        (lambda: build("model_5"), "native", CPU, "native"),
        (lambda: build("model_5"), "auto", CUDA, "torch"),
        (foreign, "auto", CPU, "torch"),
        (foreign, "torch", CPU, "torch"),
    ],
)
def test_the_network_and_the_device_decide(
    network: Callable[[], nn.Module], asked: str, device: torch.device, chosen: str
) -> None:
    choice = choose_engine(network(), Compute(device, asked, threads=2))
    assert choice.compute == Compute(device, chosen, threads=2)
    assert len(choice.told.splitlines()) == 1
    assert choose_engine(network(), choice.compute).compute == choice.compute


@pytest.mark.parametrize(("network", "device"), [(foreign, CPU), (lambda: build("model_5"), CUDA)])
def test_kernels_asked_for_by_name_are_refused_with_the_way_out(
    network: Callable[[], nn.Module], device: torch.device
) -> None:
    with pytest.raises(InputError) as error:
        choose_engine(network(), Compute(device, "native"))
    told = str(error.value)
    assert len(told.splitlines()) == 1
    assert "engine: auto" in told and ("Skipping" in told or "cuda" in told)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_that_is_computed_right_passes_and_nothing_is_touched(name: str) -> None:
    network = build(name)
    compute = choose_engine(network, Compute(CPU, "auto")).compute
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    check_engine(network, IMAGES, compute)
    assert torch.equal(torch.get_rng_state(), random) and network.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_a_network_that_would_be_computed_as_another_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if the kernels took a network for a row of its layers.
    def admit(network: nn.Module, *rest: int) -> NativeNetwork:
        return NativeNetwork(nn.Sequential(*network.children()), (1, 28, 28), 32)

    monkeypatch.setattr(engine, "_native", admit)
    assert supports(foreign()) is not None
    with pytest.raises(InputError, match=r"training mode .*engine: torch"):
        check_engine(foreign(), IMAGES, Compute(CPU, "native"))


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_each_mode_is_compared(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    right = NativeNetwork._forward

    def wrong(self: NativeNetwork, inputs: Tensor, training: bool) -> Tensor:
        return right(self, inputs, training) + (0.1 if training == (mode == "training") else 0)

    monkeypatch.setattr(NativeNetwork, "_forward", wrong)
    with pytest.raises(InputError, match=f"in {mode} mode"):
        check_engine(build("model_4"), IMAGES, Compute(CPU, "native"))


def test_scores_that_are_no_numbers_where_pytorchs_are_are_no_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeNetwork, "_forward", lambda *_, **__: torch.full((32, 10), torch.nan))
    with pytest.raises(InputError, match="nan"):
        check_engine(build("model_4"), IMAGES, Compute(CPU, "native"))


@pytest.mark.parametrize("name", ["model_2", "model_4"])
def test_a_single_image_is_compared_in_evaluation_mode(name: str) -> None:
    check_engine(build(name), IMAGES[:1], Compute(CPU, "native"))


def test_a_network_that_pytorch_finds_not_finite_is_left_to_the_run() -> None:
    network = build("model_4")
    torch.nn.init.constant_(next(network.parameters()), torch.nan)
    check_engine(network, IMAGES, Compute(CPU, "native"))
