"""One model, one recipe: ``fit`` trains a network in place and tells of each epoch as it ends."""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from mnist_cnn import metrics
from mnist_cnn.augmentation import augment
from mnist_cnn.data import Images, Normalisation, intensities
from mnist_cnn.engine import Compute, Forward, evaluation_pass, training_pass
from mnist_cnn.params import Recipe
from mnist_cnn.views import for_training, for_use

# A bar that is redrawn more often costs a device its queue of work, and nobody reads faster.
_STEPS_A_REFRESH = 20


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
    statistics, is kept from step to step, decaying by that factor; the run delivers it in place of the last
    step's weights. At a constant learning rate it does what a falling one does: the noise of single steps goes.

    Args:
        network: on the CPU or on the device; left on the device, in training mode, with the weights delivered.
        train, val: as in the files, on the CPU; ``val`` is looked at, never trained on.

    Source: "Acceleration of Stochastic Approximation by Averaging", 1992, https://doi.org/10.1137/0330046
    """
    device = compute.device
    generator = Generator().manual_seed(seed)
    train, val = for_training(train, recipe).to(device), for_use(val, recipe)
    network.to(device).train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.max_lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
        fused=True,
    )
    forward = training_pass(network, recipe.batch_size, compute)
    average = WeightAverage(network, recipe.weight_average) if recipe.weight_average else None
    delivered = average.network if average else network
    evaluated = evaluation_pass(delivered, recipe.batch_size, compute)
    images = len(train.labels)
    steps_an_epoch = math.ceil(images / recipe.batch_size)
    steps = recipe.epochs * steps_an_epoch
    for epoch in range(recipe.epochs):
        order = torch.randperm(images, generator=generator).to(device)
        totals = torch.zeros(2, dtype=torch.float64, device=device)
        rate = recipe.max_lr
        with tqdm(total=steps_an_epoch, desc=f"Epoch {epoch + 1}", unit="batch", disable=None, leave=True) as bar:
            for position, indices in enumerate(order.split(recipe.batch_size)):
                rate = learning_rate(recipe, epoch * steps_an_epoch + position, steps)
                batch = train.take(indices)
                inputs = normalisation(augment(intensities(batch.pixels), recipe.augmentation, generator))
                totals += train_step(
                    forward, optimizer, inputs, batch.labels, rate, recipe.clip_ratio, recipe.label_smoothing
                )
                if average:
                    average.update()
                if not bar.disable and ((position + 1) % _STEPS_A_REFRESH == 0 or position + 1 == steps_an_epoch):
                    seen = min((position + 1) * recipe.batch_size, images)
                    summed_loss, correct = totals.tolist()
                    bar.set_postfix_str(f"loss={summed_loss / seen:.3f}, accuracy={100 * correct / seen:.2f}%", False)
                    bar.update(position + 1 - bar.n)
        summed_loss, correct = totals.tolist()
        checked = metrics.predict(evaluated, val, normalisation, recipe.batch_size, device)
        yield Epoch(
            epoch=epoch + 1,
            learning_rate=rate,
            train_loss=summed_loss / images,
            train_accuracy=100 * correct / images,
            val_loss=metrics.loss(checked),
            val_accuracy=metrics.accuracy(checked),
            delivered=delivered,
        )
    if average:
        network.load_state_dict(delivered.state_dict())


class WeightAverage:
    """The exponential moving average of a network's weights and of batch norm's statistics, itself a ``network``.

    What ``torch.optim.swa_utils.AveragedModel`` computes, in a tenth of its time: the tensors are looked up once.

    Args:
        followed: already where it is trained, and in its memory format: its tensors are read at each update.
        decay: in [0, 1), the weight of what has been.
    """

    def __init__(self, followed: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(followed)
        self._weight = 1.0
        self._decay = decay
        mine, theirs = self.network.state_dict().values(), followed.state_dict().values()
        self._averages, self._values = ([x for x in side if x.is_floating_point()] for side in (mine, theirs))
        self._counts, self._counters = ([x for x in side if not x.is_floating_point()] for side in (mine, theirs))

    def update(self) -> None:
        """One step further; the first takes the values as they are."""
        torch._foreach_lerp_(self._averages, self._values, self._weight)
        if self._counts:
            torch._foreach_copy_(self._counts, self._counters)
        self._weight = 1 - self._decay


def train_step(
    forward: Forward,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    rate: float,
    clip_ratio: float = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """One step of gradient descent at a learning rate.

    Gradients are shortened by ``clip_ratio`` as ``shorten_gradients`` says; 0 leaves them as they are.
    With ``label_smoothing`` the share of each label's weight that it names is spread over all classes.

    Returns float64 ``(2,)``: the loss summed over the batch, and the number of images recognised.
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
    return torch.stack([loss.detach() * len(labels), recognised]).double()


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
