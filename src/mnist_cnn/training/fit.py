"""``fit`` trains a network in place by a recipe."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from mnist_cnn.common.errors import InputError
from mnist_cnn.data.augmentation import draw_changes, transform
from mnist_cnn.data.images import Images, Normalisation, Splits, intensities
from mnist_cnn.engine.cuda_graph import captured
from mnist_cnn.engine.execution import ExecutionConfig, choose_engine
from mnist_cnn.engine.passes import check_engine, has_only_torch_layers, training_pass
from mnist_cnn.engine.predictor import Predictor
from mnist_cnn.settings.params import Recipe
from mnist_cnn.training.ema import WeightEMA
from mnist_cnn.training.progress import Progress, State
from mnist_cnn.training.schedule import learning_rate
from mnist_cnn.training.step import sum_dtype, train_step

# A bar that is redrawn more often makes a device wait, and nobody reads faster.
_STEPS_A_REFRESH = 20
# Images at a time to validate on a device: enough to keep it busy.
_ON_DEVICE = 1000


class Epoch(NamedTuple):
    """What is known when an epoch ends: losses in nats, accuracies in percent.

    ``train_loss`` and ``train_accuracy`` are averages over the epoch's own batches, as they were trained on
    (augmented, with dropout, the weights still changing); ``val_*`` are of the weights at its end, of their EMA
    where the recipe has one.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


# Called at each epoch's end, with the network as it would be used then: its EMA, where the recipe has one.
OnEpoch = Callable[[Epoch, nn.Module], object]


def fit(
    network: nn.Module,
    splits: Splits,
    recipe: Recipe,
    *,
    seed: int,
    execution: ExecutionConfig,
    on_epoch: OnEpoch = lambda epoch, network: None,
    progress: Progress | None = None,
) -> list[Epoch]:
    """Train ``network`` in place; returns what is known of each epoch.

    The order of the images and their augmentation come from ``seed``; dropout draws from PyTorch's global
    generator, which the caller seeds. The same seeds and machine give the same weights, bit for bit.

    Where the recipe has an ``ema_decay``, an exponential moving average (EMA) of the weights, and of batch norm's
    statistics, is kept from step to step, and takes the place of the last step's weights at the end. At a constant
    learning rate it does what a falling one does: it averages out the noise of single steps.

    Args:
        network: on the CPU or on the device; left on the device, in training mode, with the final weights.
        splits: ``train`` and ``val``, on the CPU, deskewed where the recipe says so; ``val`` is never trained on.
        execution: an engine "auto" is decided here.
        progress: where each epoch's state is kept. A run that finds a state there goes on from it, to the same end, bit
            for bit; ``on_epoch`` is called for the epochs that are left.

    Raises:
        InputError: a loss, a weight or a statistic is no longer finite, with epoch, step and learning rate, at
            once on the CPU, on other devices at the epoch's end, because looking at a number there stops the work.
    """
    execution = choose_engine(network, execution).execution
    generator = Generator().manual_seed(seed)
    train, val = splits.train.to(execution.device), splits.val.to(execution.device)
    network.to(execution.device).train()
    check_engine(network, splits.normalisation(intensities(train.pixels[: recipe.batch_size])), execution)
    run = _Run(network, train, splits.normalisation, recipe, execution)
    batch_size = recipe.batch_size if execution.device.type == "cpu" else max(recipe.batch_size, _ON_DEVICE)
    predictor = Predictor(run.result, splits.normalisation, execution, tta=recipe.tta, batch_size=batch_size)
    progress = progress or Progress()
    history: list[Epoch] = []
    if state := progress.load():
        history = [Epoch(*epoch) for epoch in state.values["epochs"]]
        run.restore(state)
        _restore_random(state, generator, execution.device)
    for number in range(len(history), recipe.epochs):
        train_loss, train_accuracy = run.epoch(number, generator)
        with run.explained(number, run.steps - 1):
            validated = predictor(val)
        rate = run.rate(number, run.steps - 1)
        epoch = Epoch(number + 1, rate, train_loss, train_accuracy, validated.loss, validated.accuracy)
        history.append(epoch)
        on_epoch(epoch, run.result)
        tensors = run.tensors() | _random(generator, execution.device)
        progress.save(State(tensors, {"epochs": history, "averaged": run.averaged}))
    if run.result is not network:
        network.load_state_dict(run.result.state_dict())
    return history


def _random(generator: Generator, device: torch.device) -> dict[str, Tensor]:
    """The state of all generators that a run draws from, by name."""
    states = {"random.run": generator.get_state(), "random.cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states["random.device"] = torch.get_device_module(device).get_rng_state()
    return states


def _restore_random(state: State, generator: Generator, device: torch.device) -> None:
    """Put all generators back into the states that ``_random`` found."""
    generator.set_state(state.tensors["random.run"])
    torch.set_rng_state(state.tensors["random.cpu"])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state.tensors["random.device"])


class _Run:
    """A network under training, an epoch at a time; ``result`` is the network as it would be used now.

    Args:
        network: on the device, in training mode.
        train: on the device, before augmentation.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Images,
        normalisation: Normalisation,
        recipe: Recipe,
        execution: ExecutionConfig,
    ) -> None:
        self._train, self._normalisation, self._recipe = train, normalisation, recipe
        self._device = execution.device
        self._optimizer = torch.optim.SGD(
            network.parameters(),
            lr=recipe.max_lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0,
            fused=True,
        )
        self._forward = training_pass(network, recipe.batch_size, execution)
        self._ema = WeightEMA(network, recipe.ema_decay) if recipe.ema_decay else None
        self.result = self._ema.network if self._ema else network
        self.steps = math.ceil(len(train.labels) / recipe.batch_size)  # an epoch
        named = [*network.named_parameters(), *network.named_buffers()]
        self._watched = {name: tensor for name, tensor in named if tensor.is_floating_point()}
        self._weights = list(network.parameters())
        self._changing = [tensor.detach() for _, tensor in named]
        # A captured graph reads the rate from a tensor at each replay; a number would stay as it was at the capture. So
        # would whatever a network's own code decides in Python: only networks without such code are captured.
        captures = self._device.type == "cuda" and has_only_torch_layers(network)
        self._rate = torch.zeros((), device=self._device) if captures else None
        self._replay: Callable[..., Tensor] | None = None

    @property
    def averaged(self) -> int:
        """How many steps are in the EMA."""
        return self._ema.steps if self._ema else 0

    def rate(self, epoch: int, step: int) -> float:
        """The learning rate of an epoch's step, both counted from 0."""
        return learning_rate(self._recipe, epoch * self.steps + step, self._recipe.epochs * self.steps)

    def epoch(self, epoch: int, generator: Generator) -> tuple[float, float]:
        """Train one epoch; returns mean loss and accuracy in percent over its batches.

        Nothing in it waits for a device that is not the CPU.
        """
        batches = self._batches(generator)
        results = torch.zeros(len(batches), 2, dtype=sum_dtype(self._device), device=self._device)
        on_cpu = self._device.type == "cpu"
        with tqdm(total=len(batches), desc=f"Epoch {epoch + 1}", unit="batch", disable=None, leave=True) as bar:
            for step, batch in enumerate(batches):
                results[step] = self._step(self.rate(epoch, step), batch)
                if self._ema:
                    self._ema.update()
                if on_cpu:
                    self._check(epoch, step, results)
                self._show(bar, results[: step + 1], last=step + 1 == len(batches))
        if not on_cpu:
            diverged = (~results[:, 0].isfinite()).nonzero()
            self._check(epoch, int(diverged[0]) if len(diverged) else len(batches) - 1, results)
        loss, correct = results.sum(0).tolist()
        return loss / len(self._train.labels), 100 * correct / len(self._train.labels)

    def _show(self, bar: tqdm, results: Tensor, last: bool) -> None:
        """Move the bar, now and then; where it costs no waiting, with loss and accuracy so far."""
        done = len(results)
        if bar.disable or (done % _STEPS_A_REFRESH and not last):
            return
        if self._device.type == "cpu" or last:
            images = min(done * self._recipe.batch_size, len(self._train.labels))
            loss, correct = (results.sum(0) / images).tolist()
            bar.set_postfix_str(f"loss={loss:.3f}, accuracy={100 * correct:.2f}%", False)
        bar.update(done - bar.n)

    def _batches(self, generator: Generator) -> list[tuple[Tensor, ...]]:
        """The epoch's batches on the device: indices ``(M,)`` and, where the recipe augments, changes ``(4, M)``.

        Sent there at once, because each copy would make the device wait.
        """
        size = self._recipe.batch_size
        order = torch.randperm(len(self._train.labels), generator=generator)
        changes = [draw_changes(len(chunk), self._recipe.augmentation, generator) for chunk in order.split(size)]
        chunks = order.to(self._device).split(size)
        drawn = [change for change in changes if change is not None]
        if not drawn:
            return [(indices,) for indices in chunks]
        return list(zip(chunks, torch.cat(drawn, dim=1).to(self._device).split(size, dim=1), strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """All that training changes, by name."""
        sides = {"network": self._changing, "ema": self._ema.tensors if self._ema else []}
        named = {f"{side}.{place}": tensor for side, tensors in sides.items() for place, tensor in enumerate(tensors)}
        momenta = (self._optimizer.state[weight].get("momentum_buffer") for weight in self._weights)
        return named | {f"momentum.{place}": value for place, value in enumerate(momenta) if value is not None}

    def restore(self, state: State) -> None:
        """Put all that training changes back into a state: ``tensors`` and ``averaged`` as they were then."""
        for place, weight in enumerate(self._weights):
            if f"momentum.{place}" in state.tensors:
                self._optimizer.state[weight]["momentum_buffer"] = torch.empty_like(weight, requires_grad=False)
        for name, tensor in self.tensors().items():
            tensor.copy_(state.tensors[name])
        if self._ema:
            self._ema.steps = state.values["averaged"]

    def _step(self, rate: float, batch: tuple[Tensor, ...]) -> Tensor:
        """What ``train_step`` returns for a batch; on a CUDA device whole batches are replayed from one capture."""
        if self._rate is None:
            return self._train_step(rate, *batch)
        self._rate.fill_(rate)
        if len(batch[0]) < self._recipe.batch_size:
            return self._train_step(self._rate, *batch)
        if self._replay is None:
            self._replay = captured(partial(self._train_step, self._rate), batch, self._state)
        return self._replay(*batch)

    def _state(self) -> list[Tensor]:
        """All that a step changes."""
        momenta = [value for state in self._optimizer.state.values() for value in state.values()]
        return [*self._changing, *(value for value in momenta if isinstance(value, Tensor))]

    def _train_step(self, rate: float | Tensor, indices: Tensor, changes: Tensor | None = None) -> Tensor:
        batch, recipe = self._train.take(indices), self._recipe
        images = intensities(batch.pixels)
        inputs = self._normalisation(images if changes is None else transform(images, *changes))
        return train_step(
            self._forward,
            self._optimizer,
            inputs,
            batch.labels,
            rate,
            clipping=recipe.adaptive_clipping,
            label_smoothing=recipe.label_smoothing,
        )

    def _check(self, epoch: int, step: int, results: Tensor) -> None:
        """Raises InputError where the loss of a step, or a weight or statistic after it, is not finite."""
        loss = results[step, 0].item()
        if math.isfinite(loss) and torch.cat([x.detach().flatten() for x in self._watched.values()]).isfinite().all():
            return
        lost = [name for name, tensor in self._watched.items() if not tensor.isfinite().all()]
        faults = [] if math.isfinite(loss) else [f"the loss is {loss}"]
        if lost:
            faults.append(f"{lost[0]} is not finite" + (f", nor are {len(lost) - 1} other tensors" if lost[1:] else ""))
        with self.explained(epoch, step):
            raise InputError(", ".join(faults))

    @contextmanager
    def explained(self, epoch: int, step: int) -> Iterator[None]:
        """Add, to an InputError of the block, at which step training diverged and what may help."""
        recipe = self._recipe
        try:
            yield
        except InputError as error:
            raise InputError(
                f"epoch {epoch + 1}, step {step + 1} of {self.steps}, learning rate {self.rate(epoch, step):.4g}: "
                f"{error}; lower max_lr ({recipe.max_lr:g}), raise warmup_fraction ({recipe.warmup_fraction:g}) or set "
                f"adaptive_clipping ({recipe.adaptive_clipping:g}; 0 is none)"
            ) from None
