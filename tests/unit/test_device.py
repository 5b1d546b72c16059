"""What holds on every device, by ``--device``: the same results as on the CPU, and, on CUDA, steps without a pause."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mnist_cnn.common.errors import InputError
from mnist_cnn.data.augmentation import augment
from mnist_cnn.data.images import intensities
from mnist_cnn.engine import device as device_module
from mnist_cnn.engine.cuda_graph import captured
from mnist_cnn.engine.execution import ExecutionConfig
from mnist_cnn.engine.passes import evaluation_pass
from mnist_cnn.engine.predictor import TTA_VIEWS, Predictor
from mnist_cnn.models import build
from mnist_cnn.settings.params import Recipe, load
from mnist_cnn.training import fit as fit_module
from mnist_cnn.training.fit import Epoch, fit
from tests.helpers import AUGMENTATION, NORMALISATION, ROOT, TORCH, splits_of, squares

PARAMS = load(ROOT / "params.yaml")
# Without and with batch norm, with clipped gradients and test-time augmentation, with convolutions of one channel.
MODELS = ("model_1", "model_4", "model_6", "model_7")


@pytest.fixture
def execution(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> ExecutionConfig:
    """Set up as for training, but for the allocator, which other tests share."""
    monkeypatch.setattr(device_module, "keep_freed_memory", lambda: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return device_module.prepare(PARAMS.train.model_copy(update={"device": device.type, "engine": "torch"}))


@pytest.fixture
def on_cuda(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("needs --device cuda")


def recipe_of(model: str, **changes: Any) -> Recipe:  # noqa: ANN401
    # Short, so an average over a few steps: over more, nothing would be learned.
    short = {"epochs": 3, "batch_size": 32, "ema_decay": 0.5, "schedule": "constant", "warmup_fraction": 0.0}
    return PARAMS.models[model].model_copy(update=short | {"augmentation": AUGMENTATION} | changes)


def trained(model: str, recipe: Recipe, execution: ExecutionConfig) -> tuple[nn.Module, list[Epoch]]:
    """Trained on five whole batches and half a one an epoch; with dropout where the recipe has it."""
    torch.manual_seed(3)
    network = build(model, recipe.dropout)
    return network, fit(network, splits_of(squares(176), squares(40, 1)), recipe, seed=4, execution=execution)


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.cpu().clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("model", MODELS)
def test_training_gives_finite_and_falling_losses(model: str, execution: ExecutionConfig) -> None:
    network, epochs = trained(model, recipe_of(model), execution)
    assert all(math.isfinite(value) for epoch in epochs for value in epoch)
    assert epochs[-1].train_loss < 0.9 * epochs[0].train_loss
    assert {tensor.device.type for tensor in network.parameters()} == {execution.device.type}


@pytest.mark.parametrize("model", ["model_1", "model_6"])
def test_the_same_seeds_give_the_same_bytes(model: str, execution: ExecutionConfig) -> None:
    (first, epochs), (second, again) = (trained(model, recipe_of(model, epochs=2), execution) for _ in range(2))
    assert epochs == again
    mine, theirs = ([tensor.numpy().tobytes() for tensor in weights(x).values()] for x in (first, second))
    assert mine == theirs


def test_bfloat16_trains_as_well(execution: ExecutionConfig) -> None:
    _, epochs = trained("model_5", recipe_of("model_5"), execution._replace(precision="bfloat16"))
    assert epochs[-1].train_loss < 0.9 * epochs[0].train_loss


def test_the_network_has_the_ema_at_the_end(execution: ExecutionConfig) -> None:
    torch.manual_seed(3)
    network, ends = build("model_5"), []

    def on_epoch(epoch: Epoch, result: nn.Module) -> None:
        ends.append((weights(result), weights(network)))

    splits = splits_of(squares(176), squares(40, 1))
    fit(network, splits, recipe_of("model_5"), seed=4, execution=execution, on_epoch=on_epoch)
    ema, last_step = ends[-1]
    torch.testing.assert_close(weights(network), ema, rtol=0, atol=0)
    assert not torch.equal(ema["0.weight"], last_step["0.weight"])


def test_random_changes_are_those_of_the_cpu(execution: ExecutionConfig) -> None:
    images = intensities(squares(64).pixels)
    here, there = (
        augment(where, AUGMENTATION, torch.Generator().manual_seed(5)).cpu()
        for where in (images, images.to(execution.device))
    )
    torch.testing.assert_close(there, here, rtol=0, atol=1e-5)


def test_views_of_test_time_augmentation_are_those_of_the_cpu(execution: ExecutionConfig) -> None:
    class Seeing(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            seen.append(input.cpu())
            return super().forward(input.flatten(1))

    seen: list[Tensor] = []
    for where in (execution, TORCH):
        network = Seeing(784, 10).to(where.device)
        Predictor(network, NORMALISATION, where, tta=True, batch_size=64)(squares(64))
    there, here = torch.stack(seen).split(len(TTA_VIEWS))
    assert here.shape == (5, 64, 1, 28, 28)
    torch.testing.assert_close(there, here, rtol=0, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_the_logits_of_a_network_are_those_of_the_cpu(model: str, execution: ExecutionConfig) -> None:
    network, _ = trained(model, recipe_of(model, epochs=1), execution)
    inputs = NORMALISATION(intensities(squares(50, 2).pixels))
    there = evaluation_pass(network, 50, execution)(inputs.to(execution.device)).cpu()
    here = evaluation_pass(network.cpu(), 50, TORCH)(inputs)
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", ["model_2", "model_5"])
def test_a_run_that_diverges_is_ended_with_where_and_why(model: str, execution: ExecutionConfig) -> None:
    with pytest.raises(InputError, match=r"^epoch \d+, step \d+ of 6, .*max_lr"):
        trained(model, recipe_of(model, max_lr=1e30, adaptive_clipping=0.0), execution)


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.filterwarnings("error:the steps are not captured")
def test_captured_steps_are_the_steps_one_by_one(
    model: str, precision: str, execution: ExecutionConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution, recipe = execution._replace(precision=precision), recipe_of(model, epochs=2)
    replayed, epochs = trained(model, recipe, execution)
    monkeypatch.setattr(fit_module, "captured", lambda step, *rest: step)
    launched, expected = trained(model, recipe, execution)
    # Dropout included: what is replayed has to draw new numbers each time, and the same ones.
    assert [epoch._asdict() for epoch in epochs] == [pytest.approx(epoch._asdict(), rel=1e-4) for epoch in expected]
    torch.testing.assert_close(weights(replayed), weights(launched), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("model", ["model_1", "model_6"])
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_nothing_in_an_epoch_waits_for_the_device(
    model: str, execution: ExecutionConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = 0

    def watched_step(self: fit_module._Run, rate: float, batch: tuple[Tensor, ...]) -> Tensor:
        nonlocal watched
        # The first step prepares the others. An epoch begins with copies of its batches, and ends with its figures.
        torch.cuda.set_sync_debug_mode("error" if self._replay is not None else "default")
        watched += self._replay is not None
        result = step(self, rate, batch)
        torch.cuda.set_sync_debug_mode("error" if len(batch[0]) == self._recipe.batch_size else "default")
        return result

    step: Callable[..., Tensor] = fit_module._Run._step
    monkeypatch.setattr(fit_module._Run, "_step", watched_step)
    try:
        trained(model, recipe_of(model), execution)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watched == 3 * 6 - 1


def drawn_anew() -> list[float]:
    """Random numbers from the device's generator, as they come after a seed."""
    torch.manual_seed(1)
    return [float(torch.rand((), device="cuda")) for _ in range(3)]


# The last, because a failed capture may leave something behind.
@pytest.mark.usefixtures("on_cuda")
def test_a_step_that_cannot_be_captured_is_left_as_it_is(execution: ExecutionConfig) -> None:
    before = drawn_anew()
    total = torch.zeros((), device=execution.device)

    def step(addend: Tensor) -> Tensor:
        total.add_(float(addend))
        return total.clone()

    addend = torch.ones((), device=execution.device)
    with pytest.warns(UserWarning, match="not captured"):
        called = captured(step, [addend], lambda: [total])
    assert float(total) == 0 and float(called(addend)) == 1
    assert drawn_anew() == before
    assert torch.nn.functional.dropout(torch.ones(1000, device=execution.device), 0.5).sum() > 0
    # Others can be captured afterwards.
    again = captured(lambda addend: total.add_(addend).clone(), [addend], lambda: [total])
    assert [float(again(addend)) for _ in range(2)] == [2, 3]
