"""One model, one recipe: what `fit` does with the images, the weights, the rate and the random numbers."""

import io
import math
import re
import sys
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mnist_cnn import metrics
from mnist_cnn.data import Images, Normalisation
from mnist_cnn.engine import Compute, evaluation_pass, training_pass
from mnist_cnn.common.errors import InputError
from mnist_cnn.models import build
from mnist_cnn.settings.params import Augmentation, Recipe
from mnist_cnn.training import Epoch, WeightEMA, fit, learning_rate, clip_gradients_adaptively, train_step
from mnist_cnn.views import for_training, for_use

CPU = torch.device("cpu")
NORMALISATION = Normalisation(0.5, 0.3)
RECIPE = Recipe(
    epochs=1,
    batch_size=32,
    schedule="constant",
    max_lr=0.05,
    warmup_fraction=0,
    momentum=0.9,
    weight_decay=0.0001,
    ema_decay=0.0,
    adaptive_clipping=0.0,
    dropout=0.1,
    label_smoothing=0.0,
    deskew=False,
    views=1,
    augmentation=Augmentation(rotation_deg=0, shift_px=0, scale_percent=0),
)
AUGMENTATION = Augmentation(rotation_deg=10, shift_px=2, scale_percent=10)


@pytest.fixture(autouse=True)
def deterministic() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def digits(count: int, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % 10)


def trained(
    network: nn.Module,
    recipe: Recipe = RECIPE,
    train: Images | None = None,
    val: Images | None = None,
    normalisation: Normalisation = NORMALISATION,
    seed: int = 1,
    precision: str = "float32",
    engine: str = "torch",
) -> list[Epoch]:
    train, val = train or digits(64), val or digits(10, seed=1)
    torch.manual_seed(5)
    return list(fit(network, train, val, normalisation, recipe, seed=seed, compute=Compute(CPU, engine, precision)))


def model_5(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return build("model_5")


def content(tensors: Iterable[Tensor]) -> list[bytes]:
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


class Recorder(nn.Module):
    """A network that remembers the inputs it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(28 * 28, 10)
        self.seen: list[Tensor] = []

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            self.seen.append(input.detach().clone())
        scores: Tensor = self.layer(input.flatten(1))
        return scores


def numbered(count: int) -> Images:
    """Image number k is k everywhere."""
    return Images(
        torch.arange(count, dtype=torch.uint8).view(count, 1, 1).expand(count, 28, 28), torch.zeros(count).long()
    )


def seen_by(recorder: Recorder) -> list[list[int]]:
    """The numbers of the images of each batch."""
    return [(inputs[:, 0, 14, 14] * 255).round().int().tolist() for inputs in recorder.seen]


WAYS = pytest.mark.parametrize(
    ("engine", "precision"), [("native", "float32"), ("torch", "float32"), ("torch", "bfloat16")]
)


@WAYS
def test_one_batch_overfits(engine: str, precision: str) -> None:
    torch.manual_seed(1)
    recipe = RECIPE.model_copy(update={"epochs": 40, "batch_size": 64, "weight_decay": 0.0})
    network = build("model_5", 0.0)
    history = trained(network, recipe, train=digits(64), val=digits(1), precision=precision, engine=engine)
    assert history[0].train_loss > 2
    assert history[-1].train_loss < 0.5


@WAYS
def test_the_same_seeds_give_the_same_weights_byte_for_byte_and_others_do_not(engine: str, precision: str) -> None:
    recipe = RECIPE.model_copy(update={"augmentation": AUGMENTATION, "ema_decay": 0.5})
    networks = [model_5(), model_5(), model_5(), model_5(seed=2)]
    histories = [
        trained(network, recipe, seed=seed, precision=precision, engine=engine)
        for network, seed in zip(networks, (1, 1, 2, 1), strict=True)
    ]
    first, again, other_order, other_start = (content(network.state_dict().values()) for network in networks)
    assert first == again
    assert histories[0] == histories[1]
    assert first != other_order
    assert first != other_start


def test_validation_images_influence_no_weight() -> None:
    networks = [model_5(), model_5()]
    histories = [
        trained(network, RECIPE.model_copy(update={"epochs": 2}), val=val)
        for network, val in zip(networks, (digits(10, seed=1), digits(33, seed=2)), strict=True)
    ]
    first, other = (content(network.state_dict().values()) for network in networks)
    assert first == other
    for mine, theirs in zip(*histories, strict=True):
        assert (mine.train_loss, mine.train_accuracy) == (theirs.train_loss, theirs.train_accuracy)
        assert mine.val_loss != theirs.val_loss


def test_validation_figures_are_those_of_the_weights_at_the_end() -> None:
    network, val = model_5(), digits(33, seed=2)
    [epoch] = trained(network, val=val)
    assert network.training
    predictions = metrics.predict(evaluation_pass(network, 32, Compute(CPU)), val, NORMALISATION, 32, CPU)
    assert (epoch.val_loss, epoch.val_accuracy) == (metrics.loss(predictions), metrics.accuracy(predictions))


def test_a_recipes_digits_are_set_upright_in_training_and_for_its_figures_and_seen_in_its_views() -> None:
    train, val = digits(64), digits(33, seed=2)
    recipe = RECIPE.model_copy(update={"deskew": True, "views": 5, "augmentation": AUGMENTATION})
    network, other = model_5(), model_5()
    [epoch] = trained(network, recipe, train, val)
    once = recipe.model_copy(update={"deskew": False, "views": 1})
    trained(other, once, for_training(train, recipe), val)
    assert content(network.state_dict().values()) == content(other.state_dict().values())
    predictions = metrics.predict(
        evaluation_pass(network, 32, Compute(CPU)), for_use(val, recipe), NORMALISATION, 32, CPU
    )
    assert (epoch.val_loss, epoch.val_accuracy) == (metrics.loss(predictions), metrics.accuracy(predictions))


def test_training_figures_are_averages_over_images_and_not_over_batches() -> None:
    # With next to no learning rate the network stays as it is, and the averages must be its own.
    images, recipe = digits(70), RECIPE.model_copy(update={"max_lr": 1e-12, "momentum": 0.0, "weight_decay": 0.0})
    [epoch] = trained(Recorder(), recipe, train=images, val=images)
    assert epoch.train_loss == pytest.approx(epoch.val_loss, rel=1e-5)
    assert epoch.train_accuracy == pytest.approx(epoch.val_accuracy)


def test_the_history_counts_epochs_and_tells_the_rate_of_their_last_step() -> None:
    recipe = RECIPE.model_copy(update={"epochs": 3, "schedule": "one_cycle", "warmup_fraction": 0.2})
    history = trained(Recorder(), recipe, train=digits(70))
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert [epoch.learning_rate for epoch in history] == [learning_rate(recipe, step, 9) for step in (2, 5, 8)]
    for epoch in history:
        assert all(math.isfinite(value) for value in epoch.figures().values())
        assert 0 <= epoch.train_accuracy <= 100


def test_epochs_are_told_of_as_they_end() -> None:
    recorder = Recorder()
    recipe = RECIPE.model_copy(update={"epochs": 2})
    run = fit(recorder, digits(64), digits(1), NORMALISATION, recipe, seed=1, compute=Compute(CPU))
    assert len(recorder.seen) == 0
    next(run)
    assert len(recorder.seen) == 2
    next(run)
    assert len(recorder.seen) == 4
    assert list(run) == []


def test_every_image_is_used_once_an_epoch_the_last_batch_may_be_smaller() -> None:
    recorder = Recorder()
    recipe = RECIPE.model_copy(update={"epochs": 2, "batch_size": 30})
    trained(recorder, recipe, train=numbered(70), normalisation=Normalisation(0, 1))
    batches = seen_by(recorder)
    assert [len(batch) for batch in batches] == [30, 30, 10] * 2
    first, second = sum(batches[:3], []), sum(batches[3:], [])
    assert sorted(first) == sorted(second) == list(range(70))
    assert first != list(range(70))
    assert first != second


def test_the_order_of_the_images_comes_from_the_seed_alone() -> None:
    orders = []
    for seed, global_seed in ((1, 1), (1, 2), (2, 1)):
        recorder = Recorder()
        torch.manual_seed(global_seed)
        run = fit(recorder, numbered(70), digits(1), Normalisation(0, 1), RECIPE, seed=seed, compute=Compute(CPU))
        list(run)
        orders.append(seen_by(recorder))
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_a_batch_larger_than_the_training_part_is_all_of_it() -> None:
    recorder = Recorder()
    trained(recorder, RECIPE.model_copy(update={"batch_size": 1000}), train=numbered(7))
    assert [len(inputs) for inputs in recorder.seen] == [7]


def test_inputs_are_normalised() -> None:
    recorder = Recorder()
    trained(recorder, train=numbered(10), normalisation=Normalisation(0.5, 0.3))
    expected = (torch.arange(10) / 255 - 0.5) / 0.3
    torch.testing.assert_close(recorder.seen[0][:, 0, 0, 0].sort().values, expected)


def test_images_are_augmented_anew_each_epoch_and_only_if_asked() -> None:
    images = digits(1)
    for augmentation, distinct in ((RECIPE.augmentation, 1), (AUGMENTATION, 3)):
        recorder = Recorder()
        recipe = RECIPE.model_copy(update={"epochs": 3, "augmentation": augmentation})
        trained(recorder, recipe, train=images)
        assert len(torch.cat(recorder.seen).flatten(1).unique(dim=0)) == distinct


def test_the_whole_recipe_of_model_5_runs() -> None:
    recipe = RECIPE.model_copy(
        update={"epochs": 2, "schedule": "one_cycle", "warmup_fraction": 0.2, "augmentation": AUGMENTATION}
    )
    network = model_5()
    before = content(network.parameters())
    trained(network, recipe, precision="bfloat16")
    assert all(mine != theirs for mine, theirs in zip(content(network.parameters()), before, strict=True))
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


@pytest.mark.parametrize(("precision", "computed"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_is_that_of_training_while_weights_and_validation_are_float32(
    precision: str, computed: torch.dtype
) -> None:
    recorder, used = Recorder(), []
    recorder.layer.register_forward_hook(lambda layer, _, scores: used.append((layer.training, scores.dtype)))
    trained(recorder, precision=precision)
    assert used == [(True, computed)] * 2 + [(False, torch.float32)]
    assert recorder.layer.weight.dtype == torch.float32


def test_engines_agree() -> None:
    recipe = RECIPE.model_copy(update={"max_lr": 0.001, "epochs": 2, "augmentation": AUGMENTATION})
    histories = []
    for engine in ("native", "torch"):
        torch.manual_seed(1)
        histories.append(trained(build("model_5", 0.0), recipe, train=digits(70), engine=engine))
    for mine, theirs in zip(*histories, strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)
        assert mine.val_loss == pytest.approx(theirs.val_loss, rel=0.01)


def warmed_up(steps: list[Tensor], decay: float) -> Tensor:
    """The average of weights, the first of them before any step, by the formula."""
    average = steps[0]
    for taken, weights in enumerate(steps[1:]):
        kept = min(decay, (1 + taken) / (10 + taken))
        average = kept * average + (1 - kept) * weights
    return average


@given(steps=st.integers(30, 3000), decay=st.sampled_from([0.9, 0.99, 0.998, 0.9999]))
def test_an_average_forgets_where_a_run_began(steps: int, decay: float) -> None:
    # Weights of 1 at the beginning, and 0 after each step.
    network = nn.Linear(1, 1)
    nn.init.ones_(network.weight)
    average = WeightEMA(network, decay)
    nn.init.zeros_(network.weight)
    for _ in range(steps):
        average.update()
    assert 0 <= average.network.get_parameter("weight").item() < 1e-6


def test_a_weight_that_layers_share_is_averaged_once_a_step() -> None:
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    second.weight = first.weight
    network = nn.Sequential(first, second)
    nn.init.zeros_(first.weight)
    average = WeightEMA(network, 0.5)
    nn.init.ones_(first.weight)
    average.update()
    assert average.network.get_parameter("0.weight").item() == pytest.approx(0.9)


def test_the_weights_delivered_are_the_average_where_the_recipe_averages() -> None:
    images, val, recipe = digits(10), digits(10, seed=1), RECIPE.model_copy(update={"epochs": 3})
    plain, averaged = Recorder(), Recorder()
    averaged.load_state_dict(plain.state_dict())
    steps = [plain.layer.weight.detach().clone()]
    for _ in fit(plain, images, val, NORMALISATION, recipe, seed=1, compute=Compute(CPU)):
        steps.append(plain.layer.weight.detach().clone())
    recipe = recipe.model_copy(update={"ema_decay": 0.15})
    history = []
    for epoch in fit(averaged, images, val, NORMALISATION, recipe, seed=1, compute=Compute(CPU)):
        history.append(epoch)
        # At the end of each epoch both are at hand: what training goes on from, and what would be delivered now.
        assert torch.equal(averaged.layer.weight, steps[epoch.epoch])
        expected = warmed_up(steps[: epoch.epoch + 1], 0.15)
        torch.testing.assert_close(epoch.delivered.get_parameter("layer.weight").detach(), expected)
    torch.testing.assert_close(averaged.layer.weight.detach(), expected)
    predictions = metrics.predict(evaluation_pass(averaged, 10, Compute(CPU)), val, NORMALISATION, 10, CPU)
    assert history[-1].val_loss == metrics.loss(predictions)


def test_the_average_is_that_of_pytorchs_class_once_it_has_warmed_up() -> None:
    network = model_5()
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


# ---- What is no longer finite ends a run


@WAYS
@pytest.mark.parametrize("name", ["model_1", "model_5"])
def test_a_run_whose_loss_leaves_for_infinity_ends_at_once_and_says_where(
    engine: str, precision: str, name: str
) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 50, "batch_size": 16, "max_lr": 10.0, "dropout": 0.0})
    network = build(name)
    with torch.no_grad():
        next(network.parameters()).mul_(1e18)
    with pytest.raises(InputError) as error:
        trained(network, recipe, engine=engine, precision=precision)
    told = str(error.value)
    assert len(told.splitlines()) == 1
    assert re.match(r"epoch \d+, step \d of 4, learning rate 10: ", told), told
    assert "max_lr (10)" in told and "adaptive_clipping (0" in told


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("name", "told"), [("1.running_var", "1.running_var is not finite"), ("1.bias", "the loss is nan")]
)
def test_a_weight_or_statistic_that_is_not_finite_is_named(name: str, told: str, number: float) -> None:
    network = model_5()
    tensors = network.state_dict()
    recipe = RECIPE.model_copy(update={"epochs": 3})
    run = fit(network, digits(64), digits(10), NORMALISATION, recipe, seed=1, compute=Compute(CPU))
    next(run)
    tensors[name].view(-1)[0] = number
    with pytest.raises(InputError, match=rf"epoch 2, step 1 of 2, .*{re.escape(told)}"):
        next(run)


class Overflowing(Recorder):
    """In evaluation mode its scores are not finite, whatever its weights."""

    def forward(self, input: Tensor) -> Tensor:
        scores = super().forward(input)
        return scores if self.training else scores * math.inf


def test_scores_on_validation_that_are_not_finite_end_a_run() -> None:
    with pytest.raises(InputError, match=r"epoch 1, step 2 of 2, .* of 10 images"):
        trained(Overflowing())


class Viewing(nn.Module):
    """Code of its own, which counts on the usual order of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 4, 5, stride=4), nn.Linear(144, 10)

    def forward(self, input: Tensor) -> Tensor:
        seen = self.conv(input)
        scores: Tensor = self.last(seen.view(seen.size(0), -1))
        return scores


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_with_code_of_its_own_is_trained_and_averaged(precision: str) -> None:
    recipe = RECIPE.model_copy(update={"ema_decay": 0.9})
    [epoch] = trained(Viewing(), recipe, precision=precision)
    assert math.isfinite(epoch.val_loss)


def test_precisions_agree_roughly() -> None:
    [fine], [coarse] = (trained(model_5(), precision=precision) for precision in ("float32", "bfloat16"))
    assert fine != coarse
    assert coarse.train_loss == pytest.approx(fine.train_loss, rel=0.05)


def test_a_step_goes_down_the_gradient_of_the_mean_loss_at_its_rate() -> None:
    layer = nn.Linear(4, 10)
    network, weight = nn.Sequential(nn.Flatten(), layer), layer.weight
    start = weight.detach().clone()
    inputs, labels = torch.randn(6, 1, 2, 2), torch.tensor([0, 1, 2, 3, 4, 5])
    scores = network(inputs)
    loss = -scores.log_softmax(1)[torch.arange(6), labels].mean()
    [gradient] = torch.autograd.grad(loss, [weight])
    # What is left of an earlier step does not count, nor does the rate that the optimizer was made with.
    weight.grad = torch.ones_like(weight)
    forward = training_pass(network, 6, Compute(CPU))
    totals = train_step(forward, torch.optim.SGD(network.parameters(), lr=9), inputs, labels, 0.25)
    torch.testing.assert_close(weight.detach(), start - 0.25 * gradient)
    assert totals.dtype == torch.float64
    assert totals.tolist() == pytest.approx([6 * loss.item(), (scores.argmax(1) == labels).sum().item()])


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    scores, labels = torch.randn(6, 10, requires_grad=True), torch.arange(6)
    wanted = nn.functional.one_hot(labels, 10) * 0.7 + 0.3 / 10
    loss = -(wanted * scores.detach().log_softmax(1)).sum(1).mean()
    optimizer = torch.optim.SGD([scores], lr=1)
    totals = train_step(lambda _: scores, optimizer, torch.empty(0), labels, 0.0, label_smoothing=0.3)
    assert totals[0].item() == pytest.approx(6 * loss.item())
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, (scores.detach().softmax(1) - wanted) / 6)


def test_long_gradients_are_shortened_channel_by_channel_and_short_ones_left() -> None:
    layer = nn.Conv2d(2, 3, 3)
    assert layer.bias is not None
    weight, bias = layer.weight, layer.bias
    lengths = weight.detach().flatten(1).norm(dim=1)
    gradient = torch.randn_like(weight)
    # Of the first channel long, of the second just within the bound, of the third none at all.
    wanted = torch.stack([10 * lengths[0], 0.49 * lengths[1], torch.tensor(0.0)])
    gradient = gradient / gradient.flatten(1).norm(dim=1).view(3, 1, 1, 1) * wanted.view(3, 1, 1, 1)
    weight.grad, bias.grad = gradient.clone(), torch.full_like(bias, 1e6)
    clip_gradients_adaptively(layer.parameters(), 0.5)
    torch.testing.assert_close(weight.grad[0], gradient[0] / 20)
    assert torch.equal(weight.grad[1:], gradient[1:])
    assert (bias.grad == 1e6).all()


def test_a_channel_whose_weights_are_zero_can_learn_all_the_same() -> None:
    weight = torch.zeros(1, 4, requires_grad=True)
    weight.grad = torch.ones(1, 4)
    clip_gradients_adaptively([weight], 0.5)
    assert weight.grad.norm().item() == pytest.approx(0.0005)


def test_a_recipe_shortens_gradients_only_if_asked() -> None:
    moved = []
    for ratio in (0.0, 1e-3, 1e6):
        torch.manual_seed(4)
        recorder = Recorder()
        before = recorder.layer.weight.detach().clone()
        trained(recorder, RECIPE.model_copy(update={"adaptive_clipping": ratio, "momentum": 0.0}), train=digits(10))
        moved.append((recorder.layer.weight.detach() - before).norm(dim=1) / before.norm(dim=1) / RECIPE.max_lr)
    free, short, unbounded = moved
    assert free.max() > 1e-2
    assert short.max() < 1.5e-3  # of which weight decay is a tenth
    assert torch.equal(free, unbounded)


def test_momentum_is_nesterovs_and_weight_decay_is_added() -> None:
    images, recipe = digits(10), RECIPE.model_copy(update={"epochs": 3, "max_lr": 0.01, "weight_decay": 0.1})
    torch.manual_seed(1)
    network, reference = Recorder(), nn.Linear(28 * 28, 10)
    reference.load_state_dict(network.layer.state_dict())
    trained(network, recipe, train=images)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True)
    for _ in range(3):
        optimizer.zero_grad()
        scores = reference(((images.pixels / 255 - 0.5) / 0.3).flatten(1))
        nn.functional.cross_entropy(scores, images.labels).backward()
        optimizer.step()
    torch.testing.assert_close(network.layer.weight, reference.weight)


@given(steps=st.integers(1, 10_000), share=st.floats(0, 0.99), data=st.data())
def test_a_constant_rate_stays_after_its_warmup(steps: int, share: float, data: st.DataObject) -> None:
    recipe = RECIPE.model_copy(update={"warmup_fraction": share})
    step = data.draw(st.integers(0, steps - 1))
    rate = learning_rate(recipe, step, steps)
    if step >= share * steps:
        assert rate == recipe.max_lr
    assert 0 < rate <= recipe.max_lr * (1 + 1e-12)


@given(steps=st.integers(3, 10_000), share=st.floats(0.01, 0.99), schedule=st.sampled_from(["constant", "one_cycle"]))
def test_the_warmup_is_linear(steps: int, share: float, schedule: str) -> None:
    recipe = RECIPE.model_copy(update={"warmup_fraction": share, "schedule": schedule})
    for step in {0, 1, int(share * steps) // 2, int(share * steps) - 1}:
        if 0 <= step < int(share * steps):
            assert learning_rate(recipe, step, steps) == pytest.approx(recipe.max_lr * (step + 1) / (share * steps))


@given(steps=st.integers(100, 2000), share=st.floats(0, 0.5))
def test_one_cycle_rises_to_its_peak_and_falls_to_nearly_nothing(steps: int, share: float) -> None:
    recipe = RECIPE.model_copy(update={"schedule": "one_cycle", "warmup_fraction": share})
    rates = [learning_rate(recipe, step, steps) for step in range(steps)]
    peak = rates.index(max(rates))
    assert peak in (math.floor(share * steps) - 1, math.floor(share * steps))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) <= recipe.max_lr * (1 + 1e-12)
    assert max(rates) == pytest.approx(recipe.max_lr, rel=max(0.002, 1 / (1 + share * steps)))
    assert 0 < rates[-1] < 0.002 * recipe.max_lr
    middle = rates[peak + (steps - peak) // 2]
    assert middle == pytest.approx(recipe.max_lr / 2, rel=0.1)


@given(quarter=st.integers(1, 500))
def test_one_cycle_reaches_its_rate_at_the_end_of_a_warmup_of_whole_steps(quarter: int) -> None:
    recipe = RECIPE.model_copy(update={"schedule": "one_cycle", "warmup_fraction": 0.25})
    assert learning_rate(recipe, quarter - 1, 4 * quarter) == pytest.approx(recipe.max_lr, rel=1e-12)


def test_on_a_terminal_a_bar_tells_of_the_progress_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    silent, shown, terminal = Recorder(), Recorder(), Terminal()
    shown.load_state_dict(silent.state_dict())
    recipe = RECIPE.model_copy(update={"batch_size": 3})
    [epoch] = trained(silent, recipe)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert trained(shown, recipe) == [epoch]
    last = terminal.getvalue().rstrip().rpartition("\r")[2]
    assert last.startswith("Epoch 1: 100%")
    assert " 22/22 " in last
    assert f"loss={epoch.train_loss:.3f}, accuracy={epoch.train_accuracy:.2f}%" in last
