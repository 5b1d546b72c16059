"""One model, one recipe: what `fit` does with the images, the weights, the rate and the random numbers."""

import copy
import io
import math
import re
import sys
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from mnist_cnn.common.errors import InputError
from mnist_cnn.data.images import Images, Normalisation
from mnist_cnn.engine.execution import ExecutionConfig
from mnist_cnn.engine.predictor import Predictor
from mnist_cnn.models import build
from mnist_cnn.settings.params import Recipe
from mnist_cnn.training.fit import Epoch, OnEpoch, fit
from mnist_cnn.training.schedule import learning_rate
from tests.helpers import AUGMENTATION, NATIVE, NORMALISATION, RECIPE, TORCH, noise, splits_of

BFLOAT16 = TORCH._replace(precision="bfloat16")
EACH_EXECUTION = pytest.mark.parametrize("execution", [NATIVE, TORCH, BFLOAT16], ids=["native", "torch", "bfloat16"])


@pytest.fixture(autouse=True)
def deterministic() -> None:
    torch.use_deterministic_algorithms(True)


def trained(
    network: nn.Module,
    recipe: Recipe = RECIPE,
    train: Images | None = None,
    val: Images | None = None,
    *,
    normalisation: Normalisation = NORMALISATION,
    seed: int = 1,
    execution: ExecutionConfig = TORCH,
    on_epoch: OnEpoch = lambda epoch, network: None,
) -> list[Epoch]:
    splits = splits_of(train or noise(64), val or noise(10, seed=1))._replace(normalisation=normalisation)
    torch.manual_seed(5)
    return fit(network, splits, recipe, seed=seed, execution=execution, on_epoch=on_epoch)


def recipe_with(**changes: object) -> Recipe:
    return RECIPE.model_copy(update=changes)


def model_5(seed: int = 1, dropout: float = 0.1) -> nn.Module:
    torch.manual_seed(seed)
    return build("model_5", dropout)


def content(tensors: Iterable[Tensor]) -> list[bytes]:
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


def state(network: nn.Module) -> list[bytes]:
    return content(network.state_dict().values())


def figures(network: nn.Module, images: Images, *, tta: bool = False) -> tuple[float, float]:
    """Loss and accuracy."""
    predictions = Predictor(network, NORMALISATION, TORCH, tta=tta, batch_size=32)(images)
    return predictions.loss, predictions.accuracy


class Recorder(nn.Module):
    """A network that remembers the inputs it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(28 * 28, 10)
        self.seen: list[Tensor] = []

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            self.seen.append(input.detach().clone())
        logits: Tensor = self.layer(input.flatten(1))
        return logits


def numbered(count: int) -> Images:
    """Image number k is k everywhere."""
    pixels = torch.arange(count, dtype=torch.uint8).view(count, 1, 1).expand(count, 28, 28)
    return Images(pixels, torch.zeros(count).long())


def seen_by(recorder: Recorder) -> list[list[int]]:
    """The numbers of the images of each batch, where they were not normalised."""
    return [(inputs[:, 0, 14, 14] * 255).round().int().tolist() for inputs in recorder.seen]


# ---- What is learned, and from what


@EACH_EXECUTION
def test_one_batch_overfits(execution: ExecutionConfig) -> None:
    recipe = recipe_with(epochs=40, batch_size=64, weight_decay=0.0)
    history = trained(model_5(dropout=0.0), recipe, val=noise(1), execution=execution)
    assert history[0].train_loss > 2
    assert history[-1].train_loss < 0.5


@EACH_EXECUTION
def test_the_same_seeds_give_the_same_weights_byte_for_byte_and_others_do_not(execution: ExecutionConfig) -> None:
    recipe = recipe_with(augmentation=AUGMENTATION, ema_decay=0.5)
    networks = [model_5(), model_5(), model_5(), model_5(seed=2)]
    histories = [
        trained(network, recipe, seed=seed, execution=execution)
        for network, seed in zip(networks, (1, 1, 2, 1), strict=True)
    ]
    first, again, other_order, other_start = map(state, networks)
    assert first == again
    assert histories[0] == histories[1]
    assert first != other_order
    assert first != other_start


def test_validation_images_influence_no_weight() -> None:
    networks, recipe = [model_5(), model_5()], recipe_with(epochs=2)
    histories = [
        trained(network, recipe, val=val)
        for network, val in zip(networks, (noise(10, seed=1), noise(33, seed=2)), strict=True)
    ]
    assert state(networks[0]) == state(networks[1])
    for mine, theirs in zip(*histories, strict=True):
        assert (mine.train_loss, mine.train_accuracy) == (theirs.train_loss, theirs.train_accuracy)
        assert mine.val_loss != theirs.val_loss


def test_validation_figures_are_those_of_the_weights_at_the_end() -> None:
    network, val = model_5(), noise(33, seed=2)
    [epoch] = trained(network, val=val)
    assert network.training
    assert (epoch.val_loss, epoch.val_accuracy) == figures(network, val)


def test_test_time_augmentation_is_for_the_figures_of_validation_and_changes_no_weight() -> None:
    val = noise(33, seed=2)
    recipe = recipe_with(deskew=True, tta=True, augmentation=AUGMENTATION)
    network, other = model_5(), model_5()
    [epoch] = trained(network, recipe, val=val)
    # Splits come deskewed, so that is not done once more.
    [plain] = trained(other, recipe.model_copy(update={"deskew": False, "tta": False}), val=val)
    assert state(network) == state(other)
    assert (epoch.val_loss, epoch.val_accuracy) == figures(network, val, tta=True)
    assert (plain.val_loss, plain.val_accuracy) == figures(network, val) != figures(network, val, tta=True)


def test_training_figures_are_averages_over_images_and_not_over_batches() -> None:
    # With next to no learning rate the network stays as it is, and the averages must be its own.
    images = noise(70)
    [epoch] = trained(Recorder(), recipe_with(max_lr=1e-12, momentum=0.0, weight_decay=0.0), images, images)
    assert epoch.train_loss == pytest.approx(epoch.val_loss, rel=1e-5)
    assert epoch.train_accuracy == pytest.approx(epoch.val_accuracy)


def test_the_history_counts_epochs_and_has_the_rate_of_their_last_step() -> None:
    recipe = recipe_with(epochs=3, schedule="one_cycle", warmup_fraction=0.2)
    history = trained(Recorder(), recipe, noise(70))
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert [epoch.learning_rate for epoch in history] == [learning_rate(recipe, step, 9) for step in (2, 5, 8)]
    for epoch in history:
        assert all(math.isfinite(value) for value in epoch)
        assert 0 <= epoch.train_accuracy <= 100


def test_on_epoch_is_called_as_each_epoch_ends() -> None:
    recorder, told = Recorder(), []

    def on_epoch(epoch: Epoch, network: nn.Module) -> None:
        assert network is recorder
        told.append((epoch, len(recorder.seen)))

    history = trained(recorder, recipe_with(epochs=2), on_epoch=on_epoch)
    assert told == [(history[0], 2), (history[1], 4)]


def test_an_exception_in_on_epoch_passes_through_and_ends_the_run() -> None:
    recorder, mine = Recorder(), InputError("mine")

    def on_epoch(epoch: Epoch, network: nn.Module) -> None:
        raise mine

    with pytest.raises(InputError) as error:
        trained(recorder, recipe_with(epochs=3, ema_decay=0.5), on_epoch=on_epoch)
    assert error.value is mine and str(mine) == "mine"
    assert len(recorder.seen) == 2


# ---- Which images, in which order, and how they are seen


def test_every_image_is_used_once_an_epoch_the_last_batch_may_be_smaller() -> None:
    recorder = Recorder()
    trained(recorder, recipe_with(epochs=2, batch_size=30), numbered(70), normalisation=Normalisation(0, 1))
    batches = seen_by(recorder)
    assert [len(batch) for batch in batches] == [30, 30, 10] * 2
    first, second = sum(batches[:3], []), sum(batches[3:], [])
    assert sorted(first) == sorted(second) == list(range(70))
    assert first != list(range(70))
    assert first != second


def test_the_order_of_the_images_comes_from_the_seed_alone() -> None:
    orders = []
    splits = splits_of(numbered(70), noise(1))._replace(normalisation=Normalisation(0, 1))
    for seed, global_seed in ((1, 1), (1, 2), (2, 1)):
        recorder = Recorder()
        torch.manual_seed(global_seed)
        fit(recorder, splits, RECIPE, seed=seed, execution=TORCH)
        orders.append(seen_by(recorder))
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_a_batch_larger_than_the_training_split_is_all_of_it() -> None:
    recorder = Recorder()
    trained(recorder, recipe_with(batch_size=1000), numbered(7))
    assert [len(inputs) for inputs in recorder.seen] == [7]


def test_inputs_are_normalised() -> None:
    recorder = Recorder()
    trained(recorder, train=numbered(10), normalisation=Normalisation(0.5, 0.3))
    expected = (torch.arange(10) / 255 - 0.5) / 0.3
    torch.testing.assert_close(recorder.seen[0][:, 0, 0, 0].sort().values, expected)


def test_images_are_augmented_anew_each_epoch_and_only_if_asked() -> None:
    for augmentation, distinct in ((RECIPE.augmentation, 1), (AUGMENTATION, 3)):
        recorder = Recorder()
        trained(recorder, recipe_with(epochs=3, augmentation=augmentation), noise(1))
        assert len(torch.cat(recorder.seen).flatten(1).unique(dim=0)) == distinct


# ---- How it is computed


def test_a_whole_recipe_changes_every_weight() -> None:
    recipe = recipe_with(epochs=2, schedule="one_cycle", warmup_fraction=0.2, augmentation=AUGMENTATION)
    network = model_5()
    before = content(network.parameters())
    trained(network, recipe, execution=BFLOAT16)
    assert all(mine != theirs for mine, theirs in zip(content(network.parameters()), before, strict=True))
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


@pytest.mark.parametrize(("execution", "computed"), [(TORCH, torch.float32), (BFLOAT16, torch.bfloat16)])
def test_precision_is_that_of_training_while_weights_and_validation_are_float32(
    execution: ExecutionConfig, computed: torch.dtype
) -> None:
    recorder, used = Recorder(), []
    recorder.layer.register_forward_hook(lambda layer, _, logits: used.append((layer.training, logits.dtype)))
    trained(recorder, execution=execution)
    assert used == [(True, computed)] * 2 + [(False, torch.float32)]
    assert recorder.layer.weight.dtype == torch.float32


def test_engines_agree() -> None:
    recipe = recipe_with(max_lr=0.001, epochs=2, augmentation=AUGMENTATION)
    histories = [trained(model_5(dropout=0.0), recipe, noise(70), execution=engine) for engine in (NATIVE, TORCH)]
    for mine, theirs in zip(*histories, strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
        assert mine.val_loss == pytest.approx(theirs.val_loss, rel=0.01)


def test_precisions_agree_roughly() -> None:
    [fine], [coarse] = (trained(model_5(), execution=execution) for execution in (TORCH, BFLOAT16))
    assert fine != coarse
    assert coarse.train_loss == pytest.approx(fine.train_loss, rel=0.05)


class Viewing(nn.Module):
    """Code of its own, which counts on the usual order of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 4, 5, stride=4), nn.Linear(144, 10)

    def forward(self, input: Tensor) -> Tensor:
        seen = self.conv(input)
        logits: Tensor = self.last(seen.view(seen.size(0), -1))
        return logits


@pytest.mark.parametrize("execution", [TORCH, BFLOAT16])
def test_a_network_with_code_of_its_own_is_trained_and_averaged(execution: ExecutionConfig) -> None:
    [epoch] = trained(Viewing(), recipe_with(ema_decay=0.9), execution=execution)
    assert math.isfinite(epoch.val_loss)


def test_gradients_are_clipped_only_if_the_recipe_says_so() -> None:
    moved = []
    for clipping in (0.0, 1e-3, 1e6):
        torch.manual_seed(4)
        recorder = Recorder()
        before = recorder.layer.weight.detach().clone()
        trained(recorder, recipe_with(adaptive_clipping=clipping, momentum=0.0), noise(10))
        moved.append((recorder.layer.weight.detach() - before).norm(dim=1) / before.norm(dim=1) / RECIPE.max_lr)
    free, clipped, unbounded = moved
    assert free.max() > 1e-2
    assert clipped.max() < 1.5e-3  # of which weight decay is a tenth
    assert torch.equal(free, unbounded)


def test_momentum_is_nesterovs_and_weight_decay_is_added() -> None:
    images = noise(10)
    network, reference = Recorder(), nn.Linear(28 * 28, 10)
    reference.load_state_dict(network.layer.state_dict())
    trained(network, recipe_with(epochs=3, max_lr=0.01, weight_decay=0.1), images)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True)
    for _ in range(3):
        optimizer.zero_grad()
        logits = reference(((images.pixels / 255 - 0.5) / 0.3).flatten(1))
        nn.functional.cross_entropy(logits, images.labels).backward()
        optimizer.step()
    torch.testing.assert_close(network.layer.weight, reference.weight)


# ---- The moving average of the weights


def averaged(steps: list[Tensor], decay: float) -> Tensor:
    """The EMA of weights, the first of them before any step, by the formula."""
    average = steps[0]
    for taken, weights in enumerate(steps[1:]):
        kept = min(decay, (1 + taken) / (10 + taken))
        average = kept * average + (1 - kept) * weights
    return average


def test_the_ema_is_what_is_validated_and_training_goes_on_from_the_last_steps_weights() -> None:
    images, val, recipe = noise(10), noise(10, seed=1), recipe_with(epochs=3)
    plain, network = Recorder(), Recorder()
    network.load_state_dict(plain.state_dict())
    steps = [plain.layer.weight.detach().clone()]
    trained(plain, recipe, images, val, on_epoch=lambda *_: steps.append(plain.layer.weight.detach().clone()))

    def on_epoch(epoch: Epoch, result: nn.Module) -> None:
        assert torch.equal(network.layer.weight, steps[epoch.epoch])
        expected = averaged(steps[: epoch.epoch + 1], 0.15)
        torch.testing.assert_close(result.get_parameter("layer.weight").detach(), expected)
        assert epoch.val_loss == figures(result, val)[0]

    history = trained(network, recipe.model_copy(update={"ema_decay": 0.15}), images, val, on_epoch=on_epoch)
    torch.testing.assert_close(network.layer.weight.detach(), averaged(steps, 0.15))
    assert history[-1].val_loss == figures(network, val)[0]


@EACH_EXECUTION
def test_the_network_has_the_ema_at_the_end_batch_norms_statistics_included(execution: ExecutionConfig) -> None:
    network, results, last_steps = model_5(), [], []
    weight = next(network.parameters())

    def on_epoch(epoch: Epoch, result: nn.Module) -> None:
        results.append(copy.deepcopy(result.state_dict()))
        last_steps.append(copy.deepcopy(network.state_dict()))

    trained(network, recipe_with(epochs=2, ema_decay=0.5), execution=execution, on_epoch=on_epoch)
    assert state(network) == content(results[-1].values())
    for name in ("0.weight", "1.weight", "1.running_mean", "1.running_var"):
        assert not torch.equal(results[-1][name], last_steps[-1][name])
    assert weight is next(network.parameters()) and weight.requires_grad and network.training


# ---- What is no longer finite ends a run


@EACH_EXECUTION
@pytest.mark.parametrize("name", ["model_1", "model_5"])
def test_a_run_that_diverges_ends_at_once_and_says_where(execution: ExecutionConfig, name: str) -> None:
    network = build(name)
    with torch.no_grad():
        next(network.parameters()).mul_(1e18)
    with pytest.raises(InputError) as error:
        trained(network, recipe_with(epochs=50, batch_size=16, max_lr=10.0), execution=execution)
    told = str(error.value)
    assert len(told.splitlines()) == 1
    assert re.match(r"epoch \d+, step \d of 4, learning rate 10: ", told), told
    assert "max_lr (10)" in told and "adaptive_clipping (0" in told


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("name", "told"), [("1.running_var", "1.running_var is not finite"), ("1.bias", "the loss is nan")]
)
def test_a_weight_or_statistic_that_is_not_finite_is_named(name: str, told: str, number: float) -> None:
    def on_epoch(epoch: Epoch, network: nn.Module) -> None:
        network.state_dict()[name].view(-1)[0] = number

    with pytest.raises(InputError, match=rf"epoch 2, step 1 of 2, .*{re.escape(told)}"):
        trained(model_5(), recipe_with(epochs=3), on_epoch=on_epoch)


class Overflowing(Recorder):
    """In evaluation mode its logits are not finite, whatever its weights."""

    def forward(self, input: Tensor) -> Tensor:
        logits = super().forward(input)
        return logits if self.training else logits * math.inf


def test_logits_on_validation_that_are_not_finite_end_a_run() -> None:
    with pytest.raises(InputError, match=r"epoch 1, step 2 of 2, .* of 10 images"):
        trained(Overflowing())


# ---- What is shown


def test_on_a_terminal_a_bar_shows_the_progress_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    silent, terminal = Recorder(), Terminal()
    shown, recipe = copy.deepcopy(silent), recipe_with(batch_size=3)
    [epoch] = trained(silent, recipe)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert trained(shown, recipe) == [epoch]
    last = terminal.getvalue().rstrip().rpartition("\r")[2]
    assert last.startswith("Epoch 1: 100%")
    assert " 22/22 " in last
    assert f"loss={epoch.train_loss:.3f}, accuracy={epoch.train_accuracy:.2f}%" in last
