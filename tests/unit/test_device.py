"""What holds on every device, by ``--device``: the same results as on the CPU, and, on CUDA, steps without a pause."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mnist_cnn import runtime, training
from mnist_cnn.data.augmentation import augment
from mnist_cnn.data import Images, Normalisation, intensities
from mnist_cnn.engine import Compute, evaluation_pass
from mnist_cnn.common.errors import InputError
from mnist_cnn.models import build
from mnist_cnn.settings.params import Augmentation, Params, Recipe, load
from mnist_cnn.training import Epoch, fit
from mnist_cnn.views import for_use

PARAMS: Params = load(Path(__file__).parents[2] / "params.yaml")
NORMALISATION = Normalisation(0.13, 0.31)
MILD = Augmentation(rotation_deg=10, shift_px=2, scale_percent=10)
# Without and with batch norm, with a bound on the gradient, upright in five views, with convolutions of one channel.
MODELS = ("model_1", "model_4", "model_6", "model_7")


@pytest.fixture
def compute(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Compute:
    """Set up as for training, but for the allocator, which other tests share."""
    monkeypatch.setattr(runtime, "keep_freed_memory", lambda: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return runtime.prepare(PARAMS.train.model_copy(update={"device": device.type, "engine": "torch"}))


@pytest.fixture
def on_cuda(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("needs --device cuda")


def digits(count: int, seed: int = 0) -> Images:
    """A bright square, whose place tells the class, on dim noise."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(60, (count, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 10
    for image, label in zip(pixels, labels.tolist(), strict=True):
        row, column = 4 + 12 * (label // 5), 2 + 5 * (label % 5)
        image[row : row + 6, column : column + 5] = 255
    return Images(pixels, labels)


def recipe_of(model: str, **changes: Any) -> Recipe:  # noqa: ANN401
    # Short, so an average over a few steps: over more, nothing would be learned.
    short = {"epochs": 3, "batch_size": 32, "ema_decay": 0.5, "schedule": "constant", "warmup_fraction": 0.0}
    return PARAMS.models[model].model_copy(update=short | {"augmentation": MILD} | changes)


def trained(model: str, recipe: Recipe, compute: Compute, images: int = 176) -> tuple[nn.Module, list[Epoch]]:
    """Whole batches and half a one; dropout where the network has it."""
    torch.manual_seed(3)
    network = build(model)
    run = fit(network, digits(images), digits(40, 1), NORMALISATION, recipe, seed=4, compute=compute)
    return network, list(run)


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.cpu().clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("model", MODELS)
def test_training_gives_finite_and_falling_losses(model: str, compute: Compute) -> None:
    network, epochs = trained(model, recipe_of(model), compute)
    losses = [epoch.train_loss for epoch in epochs]
    assert all(math.isfinite(value) for epoch in epochs for value in epoch.figures().values())
    assert losses[-1] < 0.9 * losses[0]
    assert {tensor.device.type for tensor in network.parameters()} == {compute.device.type}


@pytest.mark.parametrize("model", ["model_1", "model_6"])
def test_the_same_seeds_give_the_same_bytes(model: str, compute: Compute) -> None:
    (first, epochs), (second, again) = (trained(model, recipe_of(model, epochs=2), compute) for _ in range(2))
    assert epochs == again
    assert [x.numpy().tobytes() for x in weights(first).values()] == [
        x.numpy().tobytes() for x in weights(second).values()
    ]


def test_bfloat16_trains_as_well(compute: Compute) -> None:
    _, epochs = trained("model_5", recipe_of("model_5"), compute._replace(precision="bfloat16"))
    assert epochs[-1].train_loss < 0.9 * epochs[0].train_loss


def test_random_changes_are_those_of_the_cpu(compute: Compute) -> None:
    images = intensities(digits(64).pixels)
    here, there = (
        augment(where, MILD, torch.Generator().manual_seed(5)).cpu() for where in (images, images.to(compute.device))
    )
    torch.testing.assert_close(there, here, rtol=0, atol=1e-5)


def test_upright_views_are_those_of_the_cpu(compute: Compute) -> None:
    images, recipe = digits(64), recipe_of("model_6")
    here, there = (for_use(where, recipe).pixels.cpu() for where in (images, images.to(compute.device)))
    assert here.shape == (64, 5, 28, 28)
    assert (here.int() - there.int()).abs().max() <= 1


@pytest.mark.parametrize("model", MODELS)
def test_a_network_scores_images_as_on_the_cpu(model: str, compute: Compute) -> None:
    network, _ = trained(model, recipe_of(model, epochs=1), compute)
    inputs = NORMALISATION(intensities(digits(50, 2).pixels))
    there = evaluation_pass(network, 50, compute)(inputs.to(compute.device)).cpu()
    here = evaluation_pass(network.cpu(), 50, Compute(torch.device("cpu")))(inputs)
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", ["model_2", "model_5"])
def test_a_run_that_diverges_is_ended_with_where_and_why(model: str, compute: Compute) -> None:
    with pytest.raises(InputError, match=r"^epoch \d+, (step \d+ of 6|validation).*max_lr"):
        trained(model, recipe_of(model, max_lr=1e30, adaptive_clipping=0.0), compute)


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.filterwarnings("error:the steps are not captured")
def test_captured_steps_are_the_steps_one_by_one(
    model: str, precision: str, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, recipe = compute._replace(precision=precision), recipe_of(model, epochs=2)
    replayed, epochs = trained(model, recipe, compute)
    monkeypatch.setattr(training, "captured", lambda step, *rest: step)
    launched, expected = trained(model, recipe, compute)
    # Dropout included: what is replayed has to draw new numbers each time, and the same ones.
    assert [epoch.figures() for epoch in epochs] == [pytest.approx(epoch.figures(), rel=1e-4) for epoch in expected]
    torch.testing.assert_close(weights(replayed), weights(launched), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("model", ["model_1", "model_6"])
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_nothing_in_an_epoch_waits_for_the_device(
    model: str, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = 0

    def steps(self: training._Steps, rate: float, batch: tuple[Tensor, ...]) -> Tensor:
        nonlocal watched
        # The first step prepares the others. An epoch begins with copies of its batches, and ends with its figures.
        torch.cuda.set_sync_debug_mode("error" if self._replay is not None else "default")
        watched += self._replay is not None
        result = step(self, rate, batch)
        torch.cuda.set_sync_debug_mode("error" if len(batch[0]) == self._recipe.batch_size else "default")
        return result

    step = training._Steps._step
    monkeypatch.setattr(training._Steps, "_step", steps)
    try:
        trained(model, recipe_of(model), compute)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watched == 3 * 6 - 1


def drawn_anew() -> list[float]:
    """Random numbers from the device's generator, as they come after a seed."""
    torch.manual_seed(1)
    return [float(torch.rand((), device="cuda")) for _ in range(3)]


# The last, because a failed capture may leave something behind.
@pytest.mark.usefixtures("on_cuda")
def test_a_step_that_cannot_be_captured_is_left_as_it_is(compute: Compute) -> None:
    before = drawn_anew()
    total = torch.zeros((), device=compute.device)

    def step(addend: Tensor) -> Tensor:
        total.add_(float(addend))
        return total.clone()

    addend = torch.ones((), device=compute.device)
    with pytest.warns(UserWarning, match="not captured"):
        called = runtime.captured(step, [addend], lambda: [total])
    assert float(total) == 0 and float(called(addend)) == 1
    assert drawn_anew() == before
    assert torch.nn.functional.dropout(torch.ones(1000, device=compute.device), 0.5).sum() > 0
    # Others can be captured afterwards.
    again = runtime.captured(lambda addend: total.add_(addend).clone(), [addend], lambda: [total])
    assert [float(again(addend)) for _ in range(2)] == [2, 3]
