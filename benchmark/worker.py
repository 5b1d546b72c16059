"""One measurement in a process of its own: a task as JSON comes in as argument, what it took goes out as JSON.

Times are of the machine's monotonic clock, which all processes share.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark import BATCH_SIZE
from mnist_cnn import metrics, runtime
from mnist_cnn.checkpoint import load_weights, save_weights
from mnist_cnn.data import Images, load_images, load_normalisation
from mnist_cnn.engine import Compute, evaluation_pass
from mnist_cnn.errors import InputError
from mnist_cnn.models import build
from mnist_cnn.native.build import load as load_kernels
from mnist_cnn.params import load
from mnist_cnn.training import fit, train_step
from mnist_cnn.views import for_use

# The brief's rate for model_5. The others are timed at one that none of them leaves for infinity.
RATES = {"model_5": 0.1}
RATE = 0.01

# A network as it is at the end of each epoch; before them None, when all is ready for the first.
Epochs = Iterator[nn.Module | None]


def classical(*, model: str, epochs: int, params: str, raw: str, weights: str, **unused: object) -> dict[str, Any]:
    """Train a model so many epochs the classical way, with the dropout that its network has."""
    # Here, because the other tasks do without torchvision.
    from benchmark.classical import loaders, train_classically

    def run() -> Epochs:
        settings = load(Path(params))
        torch.manual_seed(settings.train.seed)
        network = build(model)
        batches = loaders(Path(raw), settings.split.train, settings.split.val)
        yield None
        for _ in train_classically(network, *batches, epochs, RATES.get(model, RATE)):
            yield network

    return _timed(run(), Path(weights))


def own(
    *, model: str, epochs: int, dropout: float, params: str, parts: str, weights: str, **unused: object
) -> dict[str, Any]:
    """Train a model so many epochs by ``fit`` with its recipe, at a rate of dropout."""

    def run() -> Epochs:
        settings = load(Path(params))
        recipe = settings.models[model].model_copy(update={"epochs": epochs})
        seed, compute = settings.train.seed, runtime.prepare(settings.train)
        train, val = load_images(Path(parts) / "train.safetensors"), load_images(Path(parts) / "val.safetensors")
        normalisation = load_normalisation(Path(parts) / "statistics.json")
        torch.manual_seed(seed)
        network = build(model, dropout)
        yield None
        for epoch in fit(network, train, val, normalisation, recipe, seed=seed, compute=compute):
            yield epoch.delivered

    return _timed(run(), Path(weights))


def cold(
    *, model: str, epochs: int, dropout: float, params: str, parts: str, weights: str, **unused: object
) -> dict[str, Any]:
    """As ``own``, with the kernels compiled anew."""
    with _empty_environment():
        return own(model=model, epochs=epochs, dropout=dropout, params=params, parts=parts, weights=weights)


def compilation(**unused: object) -> dict[str, Any]:
    """Seconds to compile the kernels. They are there afterwards, for the runs to come."""
    with _empty_environment():
        began = time.monotonic()
        load_kernels()
        seconds = time.monotonic() - began
    load_kernels()
    return {"seconds": seconds}


def tested_as_written(*, model: str, parts: str, weights: str, **unused: object) -> dict[str, Any]:
    """The test accuracy of each epoch's weights."""
    return _tested(model, Path(parts), Path(weights), load_images(Path(parts) / "test.safetensors"))


def tested_as_seen(*, model: str, params: str, parts: str, weights: str, **unused: object) -> dict[str, Any]:
    """The same on images as the model's recipe has it see them."""
    images = for_use(load_images(Path(parts) / "test.safetensors"), load(Path(params)).models[model])
    return _tested(model, Path(parts), Path(weights), images)


def product(**unused: object) -> dict[str, Any]:
    """The best of five products of two matrices 2,048 wide, in FLOP a second, on all cores."""
    size = 2048
    speeds: dict[str, Any] = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.randn(2, size, size).to(dtype)
        seconds = []
        for _ in range(6):
            began = time.monotonic()
            left @ right
            seconds.append(time.monotonic() - began)
        speeds[str(dtype).removeprefix("torch.")] = 2 * size**3 / min(seconds[1:])
    return speeds


def flops(*, model: str, **unused: object) -> dict[str, Any]:
    """Of a training step by the textbook: forward and backward pass, a multiplication and an addition each one."""
    from torch.utils.flop_counter import FlopCounterMode

    network = build(model)
    inputs, labels = torch.rand(BATCH_SIZE, 1, 28, 28), torch.zeros(BATCH_SIZE, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        train_step(network, torch.optim.SGD(network.parameters(), lr=0.1), inputs, labels, 0.1)
    return {"flops": counter.get_total_flops()}


def _tested(model: str, parts: Path, weights: Path, images: Images) -> dict[str, Any]:
    normalisation = load_normalisation(parts / "statistics.json")
    device, network = torch.device("cpu"), build(model)
    evaluated, accuracies = evaluation_pass(network, BATCH_SIZE, Compute(device)), []
    for file in sorted(weights.glob("*.safetensors")):
        load_weights(file, network)
        accuracies.append(metrics.accuracy(metrics.predict(evaluated, images, normalisation, BATCH_SIZE, device)))
    return {"test_accuracies": accuracies}


@contextmanager
def _empty_environment() -> Iterator[None]:
    """The compiled kernels are looked for in a folder that does not have them."""
    installed = sys.prefix
    with tempfile.TemporaryDirectory() as scratch:
        sys.prefix = scratch
        try:
            yield
        finally:
            sys.prefix = installed
            load_kernels.cache_clear()


def _timed(epochs: Epochs, weights: Path) -> dict[str, Any]:
    """When the first epoch began and when each ended; each one's weights go to a folder."""
    next(epochs)
    began, ends = time.monotonic(), []
    for network in epochs:
        assert network is not None
        ends.append(time.monotonic())
        save_weights(weights / f"{len(ends):02}.safetensors", network)
    unit = 1024 if sys.platform == "linux" else 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"began": began, "ends": ends, "peak_memory_mb": peak / 1e6}


_ALL = (classical, own, cold, compilation, tested_as_written, tested_as_seen, product, flops)
TASKS = {task.__name__: task for task in _ALL}

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    try:
        json.dump(TASKS[given.pop("task")](**given), sys.stdout)
    except InputError as error:
        sys.exit(f"error: {error}")
