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
from mnist_cnn.engine import choose_engine, evaluation_pass
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


def classical(
    *, model: str, epochs: int, params: str, raw: str, weights: str, share: int = 1, **unused: object
) -> dict[str, Any]:
    """Train a model so many epochs the classical way, with the dropout that its network has.

    Args:
        share: see ``sizes``.
    """
    # Here, because the other tasks do without torchvision.
    from benchmark.classical import loaders, train_classically

    def run() -> Epochs:
        settings = load(Path(params))
        torch.manual_seed(settings.train.seed)
        network = build(model)
        batches = [loaders(Path(raw), *size) for size in sizes(settings.split.train, settings.split.val, share)]
        yield None
        for both in batches:
            for _ in train_classically(network, *both, epochs, RATES.get(model, RATE)):
                yield network

    return _timed(run(), Path(weights)) | {"share": share}


def own(
    *,
    model: str,
    epochs: int,
    dropout: float,
    params: str,
    parts: str,
    weights: str,
    engine: str | None = None,
    precision: str | None = None,
    share: int = 1,
    **unused: object,
) -> dict[str, Any]:
    """Train a model so many epochs by ``fit`` with its recipe, at a rate of dropout.

    Args:
        engine, precision: in place of those in params.yaml.
        share: see ``sizes``.
    """

    def run() -> Epochs:
        settings = load(Path(params))
        recipe = settings.models[model].model_copy(update={"epochs": epochs})
        shared = settings.train
        asked = {"engine": engine or shared.engine, "precision": precision or shared.precision}
        shared = shared.model_copy(update=asked)
        compute = runtime.prepare(shared)
        if engine == "torch":
            # For the same bytes everywhere ``fit`` has PyTorch compute with one thread. Here it shows what it can do.
            torch.set_num_threads(compute.threads)
        train, val = load_images(Path(parts) / "train.safetensors"), load_images(Path(parts) / "val.safetensors")
        normalisation = load_normalisation(Path(parts) / "statistics.json")
        torch.manual_seed(shared.seed)
        network = build(model, dropout)
        yield None
        for learn, check in sizes(len(train.labels), len(val.labels), share):
            few = train.take(torch.arange(learn)), val.take(torch.arange(check))
            for epoch in fit(network, *few, normalisation, recipe, seed=shared.seed, compute=compute):
                yield epoch.delivered

    return _timed(run(), Path(weights)) | {"share": share}


def sizes(train: int, val: int, share: int) -> list[tuple[int, int]]:
    """How many images there are to train on, and to evaluate on, in runs one after the other.

    All of them, or, where less than an epoch is to tell how long one takes, twice a batch and then one part in
    ``share``. What the first step has to make ready, and what an epoch costs whatever its length, can then be told from
    the images' own time: see ``compare.epoch_seconds``.
    """
    if share == 1:
        return [(train, val)]
    part = train // share, max(1, val // share)
    batch = min(BATCH_SIZE, part[0]), min(BATCH_SIZE, part[1])
    return [batch, batch, part]


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


def twice(*, model: str, params: str, parts: str, weights: str, **unused: object) -> dict[str, Any]:
    """Train a model by its recipe twice in this process: the second time libraries and device are ready.

    Returns a run as ``own`` does, and the accuracies of its epochs, for ``cold`` and ``warm``.
    """
    recipe = load(Path(params)).models[model]
    shape: dict[str, Any] = {"epochs": recipe.epochs, "dropout": recipe.dropout}
    given: dict[str, Any] = {"model": model, "params": params, "parts": parts}
    runs: dict[str, dict[str, Any]] = {}
    for name in ("cold", "warm"):
        started = time.monotonic()
        runs[name] = own(**given, **shape, weights=f"{weights}/{name}") | {"started": started}
    for name, run in runs.items():
        run |= tested_as_seen(**given, weights=f"{weights}/{name}")
    return runs


def profiled(*, model: str, params: str, parts: str, capture: bool, **unused: object) -> dict[str, Any]:
    """Where the time of a training step goes; see ``profiling``."""
    # Here, because the other tasks do without the profiler.
    from benchmark.profiling import profile_steps

    return profile_steps(model, Path(params), Path(parts), capture)


def tested_as_written(*, model: str, params: str, parts: str, weights: str, **unused: object) -> dict[str, Any]:
    """The test accuracy of each epoch's weights."""
    return _tested(model, Path(params), Path(parts), Path(weights), load_images(Path(parts) / "test.safetensors"))


def tested_as_seen(*, model: str, params: str, parts: str, weights: str, **unused: object) -> dict[str, Any]:
    """The same on images as the model's recipe has it see them."""
    images = for_use(load_images(Path(parts) / "test.safetensors"), load(Path(params)).models[model])
    return _tested(model, Path(params), Path(parts), Path(weights), images)


def product(**unused: object) -> dict[str, Any]:
    """The best of five matrix multiplications, 2,048 wide, in FLOP a second, on all cores."""
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


def _tested(model: str, params: Path, parts: Path, weights: Path, images: Images) -> dict[str, Any]:
    normalisation = load_normalisation(parts / "statistics.json")
    network = build(model)
    compute = choose_engine(network, runtime.prepare(load(params).train)).compute
    evaluated, accuracies = evaluation_pass(network.to(compute.device), BATCH_SIZE, compute), []
    for file in sorted(weights.glob("*.safetensors")):
        load_weights(file, network)
        predicted = metrics.predict(evaluated, images, normalisation, BATCH_SIZE, compute.device)
        accuracies.append(metrics.accuracy(predicted))
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


_ALL = (classical, own, cold, twice, profiled, compilation, tested_as_written, tested_as_seen, product, flops)
TASKS = {task.__name__: task for task in _ALL}

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    try:
        json.dump(TASKS[given.pop("task")](**given), sys.stdout)
    except InputError as error:
        sys.exit(f"error: {error}")
