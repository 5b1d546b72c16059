"""One model, one recipe: ``fit`` trains a network in place and tells of each epoch as it ends."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from mnist_cnn import metrics
from mnist_cnn.augmentation import draw_changes, transform
from mnist_cnn.data import Images, Normalisation, intensities
from mnist_cnn.engine import (
    Compute,
    Forward,
    check_engine,
    choose_engine,
    evaluation_pass,
    is_of_pytorchs_layers,
    training_pass,
)
from mnist_cnn.errors import InputError
from mnist_cnn.params import Recipe
from mnist_cnn.runtime import captured
from mnist_cnn.views import for_training, for_use

# A bar that is redrawn more often costs a device its queue of work, and nobody reads faster.
_STEPS_A_REFRESH = 20
# Images at a time to validate on a device: enough to keep it busy.
_ON_DEVICE = 1000


@dataclass(frozen=True)
class Epoch:
    """What is known when an epoch ends: losses in nats, accuracies in percent.

    ``train_loss`` and ``train_accuracy`` are averages over the epoch's own batches, as they were trained on
    (augmented, with dropout, the weights still changing); ``val_*`` are of the weights at its end, averaged
    where the recipe averages. ``delivered`` is a network that has these weights, until the next epoch begins.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    delivered: nn.Module = field(repr=False, compare=False)

    def figures(self) -> dict[str, float]:
        """All but the network, by name."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "delivered"}


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate for a step (counted from 0) out of ``steps`` in the whole run.

    It rises linearly over the recipe's ``warmup_share`` of the run; then it stays (``constant``), or falls
    along half a cosine to nearly nothing (``one_cycle``).

    Source: "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018,
    https://arxiv.org/abs/1708.07120
    """
    warmup = recipe.warmup_share * steps
    if step + 1 <= warmup:
        return recipe.max_lr * (step + 1) / warmup
    if recipe.schedule == "constant":
        return recipe.max_lr
    return recipe.max_lr * (1 + math.cos(math.pi * (step + 1 - warmup) / (steps + 1 - warmup))) / 2


def fit(
    network: nn.Module,
    train: Images,
    val: Images,
    normalisation: Normalisation,
    recipe: Recipe,
    *,
    seed: int,
    compute: Compute,
) -> Iterator[Epoch]:
    """Train ``network`` in place; yields at the end of each epoch, and the run ends with the iteration.

    The order of the images and their augmentation come from ``seed``; dropout draws from PyTorch's global
    generator, which the caller seeds. The same seeds and machine give the same weights, bit for bit.

    Where the recipe has a ``weight_average``, an exponential moving average of the weights, and of batch norm's
    statistics, is kept from step to step; the run delivers it in place of the last step's weights. At a constant
    learning rate it does what a falling one does: the noise of single steps goes.

    Args:
        network: on the CPU or on the device; left on the device, in training mode, with the weights delivered.
        train, val: as in the files, on the CPU; ``val`` is looked at, never trained on.
        compute: an engine "auto" is decided here.

    Raises:
        InputError: a loss, a weight or a statistic is no longer finite; told with epoch, step and learning rate, at
            once on the CPU, on other devices at the epoch's end, because looking at a number there stops the work.

    Source: "Acceleration of Stochastic Approximation by Averaging", 1992, https://doi.org/10.1137/0330046
    """
    compute = choose_engine(network, compute).compute
    generator = Generator().manual_seed(seed)
    train, val = for_training(train, recipe).to(compute.device), for_use(val, recipe).to(compute.device)
    network.to(compute.device).train()
    check_engine(network, normalisation(intensities(train.pixels[: recipe.batch_size])), compute)
    at_a_time = recipe.batch_size if compute.device.type == "cpu" else max(recipe.batch_size, _ON_DEVICE)
    steps = _Steps(network, train, normalisation, recipe, compute)
    evaluated = evaluation_pass(steps.delivered, at_a_time, compute)
    for epoch in range(recipe.epochs):
        summed_loss, correct = steps.run(epoch, generator)
        try:
            checked = metrics.predict(evaluated, val, normalisation, at_a_time, compute.device)
        except InputError as error:
            raise InputError(steps.diverged(epoch, steps.an_epoch - 1, f"on validation {error}")) from None
        yield Epoch(
            epoch=epoch + 1,
            learning_rate=steps.rate(epoch, steps.an_epoch - 1),
            train_loss=summed_loss / len(train.labels),
            train_accuracy=100 * correct / len(train.labels),
            val_loss=metrics.loss(checked),
            val_accuracy=metrics.accuracy(checked),
            delivered=steps.delivered,
        )
    if steps.delivered is not network:
        network.load_state_dict(steps.delivered.state_dict())


class _Steps:
    """The steps of a run on one network, an epoch at a time; ``delivered`` is the network that a user gets.

    Args:
        network: on the device, in training mode.
        train: on the device, as the recipe trains on it, before augmentation.
    """

    def __init__(
        self, network: nn.Module, train: Images, normalisation: Normalisation, recipe: Recipe, compute: Compute
    ) -> None:
        self._train, self._normalisation, self._recipe = train, normalisation, recipe
        self._device = compute.device
        self._optimizer = torch.optim.SGD(
            network.parameters(),
            lr=recipe.max_lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0,
            fused=True,
        )
        self._forward = training_pass(network, recipe.batch_size, compute)
        self._average = WeightAverage(network, recipe.weight_average) if recipe.weight_average else None
        self.delivered = self._average.network if self._average else network
        self.an_epoch = math.ceil(len(train.labels) / recipe.batch_size)
        named = [*network.named_parameters(), *network.named_buffers()]
        self._watched = {name: tensor for name, tensor in named if tensor.is_floating_point()}
        self._changing = [tensor.detach() for _, tensor in named]
        # Read by a captured graph at each replay, which would keep a plain number as it was; as it would what code of a
        # network's own decides in Python, so only networks without such code are captured.
        captures = self._device.type == "cuda" and is_of_pytorchs_layers(network)
        self._rate = torch.zeros((), device=self._device) if captures else None
        self._replay: Callable[..., Tensor] | None = None

    def rate(self, epoch: int, position: int) -> float:
        """The learning rate of a step, both counted from 0."""
        return learning_rate(self._recipe, epoch * self.an_epoch + position, self._recipe.epochs * self.an_epoch)

    def run(self, epoch: int, generator: Generator) -> tuple[float, float]:
        """One epoch; returns the loss summed over all images, and how many were recognised.

        Nothing in it waits for a device that is not the CPU.
        """
        batches = self._batches(generator)
        results = torch.zeros(len(batches), 2, dtype=_widest(self._device), device=self._device)
        on_cpu = self._device.type == "cpu"
        with tqdm(total=len(batches), desc=f"Epoch {epoch + 1}", unit="batch", disable=None, leave=True) as bar:
            for position, batch in enumerate(batches):
                results[position] = self._step(self.rate(epoch, position), batch)
                if self._average:
                    self._average.update()
                if on_cpu:
                    self._check(epoch, position, results)
                done = position + 1
                if not bar.disable and (done % _STEPS_A_REFRESH == 0 or done == len(batches)):
                    if on_cpu or done == len(batches):
                        seen = min(done * self._recipe.batch_size, len(self._train.labels))
                        loss, correct = (results[:done].sum(0) / seen).tolist()
                        bar.set_postfix_str(f"loss={loss:.3f}, accuracy={100 * correct:.2f}%", False)
                    bar.update(done - bar.n)
        if not on_cpu:
            wrong = (~results[:, 0].isfinite()).nonzero()
            self._check(epoch, int(wrong[0]) if len(wrong) else len(batches) - 1, results)
        summed_loss, correct = results.sum(0).tolist()
        return summed_loss, correct

    def _batches(self, generator: Generator) -> list[tuple[Tensor, ...]]:
        """The epoch's batches on the device: indices ``(M,)`` and, where the recipe augments, changes ``(4, M)``.

        Sent there at once, because each copy would make the device wait.
        """
        size = self._recipe.batch_size
        order = torch.randperm(len(self._train.labels), generator=generator)
        changes = [draw_changes(len(part), self._recipe.augmentation, generator) for part in order.split(size)]
        parts = order.to(self._device).split(size)
        drawn = [change for change in changes if change is not None]
        if not drawn:
            return [(indices,) for indices in parts]
        return list(zip(parts, torch.cat(drawn, dim=1).to(self._device).split(size, dim=1), strict=True))

    def _step(self, rate: float, batch: tuple[Tensor, ...]) -> Tensor:
        """What ``train_step`` returns for a batch; on a CUDA device whole batches are replayed from one capture."""
        if self._rate is None:
            return self._compute(rate, *batch)
        self._rate.fill_(rate)
        if len(batch[0]) < self._recipe.batch_size:
            return self._compute(self._rate, *batch)
        if self._replay is None:
            self._replay = captured(partial(self._compute, self._rate), batch, self._state)
        return self._replay(*batch)

    def _state(self) -> list[Tensor]:
        """All that a step changes."""
        momenta = [value for state in self._optimizer.state.values() for value in state.values()]
        return [*self._changing, *(value for value in momenta if isinstance(value, Tensor))]

    def _compute(self, rate: float | Tensor, indices: Tensor, changes: Tensor | None = None) -> Tensor:
        batch = self._train.take(indices)
        seen = intensities(batch.pixels)
        inputs = self._normalisation(seen if changes is None else transform(seen, *changes))
        recipe = self._recipe
        return train_step(
            self._forward, self._optimizer, inputs, batch.labels, rate, recipe.clip_ratio, recipe.label_smoothing
        )

    def _check(self, epoch: int, position: int, results: Tensor) -> None:
        """Raises InputError where the loss of a step, or a weight or statistic after it, is not finite."""
        loss = results[position, 0].item()
        if math.isfinite(loss) and torch.cat([x.detach().flatten() for x in self._watched.values()]).isfinite().all():
            return
        lost = [name for name, tensor in self._watched.items() if not tensor.isfinite().all()]
        faults = [] if math.isfinite(loss) else [f"the loss is {loss}"]
        if lost:
            faults.append(f"{lost[0]} is not finite" + (f", nor are {len(lost) - 1} other tensors" if lost[1:] else ""))
        raise InputError(self.diverged(epoch, position, ", ".join(faults)))

    def diverged(self, epoch: int, position: int, fault: str) -> str:
        """A fault with the step at which it was seen, and what may help."""
        recipe = self._recipe
        where = (
            f"epoch {epoch + 1}, step {position + 1} of {self.an_epoch}, learning rate {self.rate(epoch, position):.4g}"
        )
        return (
            f"{where}: {fault}; lower max_lr ({recipe.max_lr:g}), lengthen warmup_share ({recipe.warmup_share:g}) or "
            f"bound the gradients by clip_ratio ({recipe.clip_ratio:g}; 0 is no bound)"
        )


class WeightAverage:
    """The exponential moving average of a network's weights and of batch norm's statistics, itself a ``network``.

    Its decay warms up: after n steps it is at most (1 + n) / (10 + n). The average then reaches back over a ninth of
    the steps so far, and what a run begins with is soon forgotten, in short runs too.

    What ``torch.optim.swa_utils.AveragedModel`` computes, in a tenth of its time: the tensors are looked up once.

    Args:
        followed: already where it is trained, and in its memory format: its tensors are read at each update.
        decay: in [0, 1), the weight of what has been, when it has warmed up.

    Source: ``num_updates`` of TensorFlow's ``tf.train.ExponentialMovingAverage``,
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage
    """

    def __init__(self, followed: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(followed)
        self._decay = decay
        self._steps = 0
        # Not by the state's names, under which a weight that layers share appears several times.
        mine, theirs = ([*net.parameters(), *net.buffers()] for net in (self.network.requires_grad_(False), followed))
        self._averages, self._values = ([x.detach() for x in side if x.is_floating_point()] for side in (mine, theirs))
        self._counts, self._counters = ([x for x in side if not x.is_floating_point()] for side in (mine, theirs))

    def update(self) -> None:
        """One step further."""
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)
        if self._counts:
            torch._foreach_copy_(self._counts, self._counters)
        self._steps += 1


def train_step(
    forward: Forward,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    rate: float | Tensor,
    clip_ratio: float = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """One step of gradient descent at a learning rate (a tensor on the device, where steps are captured).

    Gradients are shortened by ``clip_ratio`` as ``shorten_gradients`` says; 0 leaves them as they are.
    With ``label_smoothing`` the share of each label's weight that it names is spread over all classes.

    Returns float64 (on mps float32) ``(2,)``: the loss summed over the batch, and the number of images recognised.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    scores = forward(inputs)
    loss = F.cross_entropy(scores, labels, label_smoothing=label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip_ratio:
        shorten_gradients([weight for group in optimizer.param_groups for weight in group["params"]], clip_ratio)
    optimizer.step()
    recognised = (scores.detach().argmax(1) == labels).sum()
    return torch.stack([loss.detach() * len(labels), recognised]).to(_widest(labels.device))


def _widest(device: torch.device) -> torch.dtype:
    """What sums are kept in: float64, which mps does not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def shorten_gradients(weights: Iterable[Tensor], ratio: float) -> None:
    """Shorten the gradient of each output channel's weights to at most ``ratio`` times the length of these weights.

    Biases, and batch norm's scales and shifts, keep theirs. It bounds how far a step can lead astray in networks
    without batch norm.

    Source: "High-Performance Large-Scale Image Recognition Without Normalization", 2021,
    https://arxiv.org/abs/2102.06171
    """
    for weight in weights:
        if weight.ndim < 2 or weight.grad is None:
            continue
        length, gradient = (torch.linalg.vector_norm(x.detach().flatten(1), dim=1) for x in (weight, weight.grad))
        # Weights of nearly no length, and gradients of none: neither stops the other for good.
        scale = (ratio * length.clamp_(min=1e-3) / gradient.clamp_(min=1e-9)).clamp_(max=1)
        weight.grad.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))
