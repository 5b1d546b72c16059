"""One measurement in a process of its own: a task as JSON comes in as argument, what it took goes out as JSON.

Times are of the machine's monotonic clock, which all processes share.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark import BATCH_SIZE, DROPOUT
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.data.images import load_splits
from mnist_cnn.engine.checkpoint import load_weights, save_weights
from mnist_cnn.engine.device import prepare
from mnist_cnn.engine.execution import choose_engine
from mnist_cnn.engine.native.build import load as load_kernels
from mnist_cnn.engine.predictor import Predictor
from mnist_cnn.layers import set_dropout
from mnist_cnn.models import build
from mnist_cnn.settings.params import load
from mnist_cnn.training.fit import fit
from mnist_cnn.training.step import train_step

# The original programme's rate for model_5. The others are timed at one at which none of them diverges.
RATES = {"model_5": 0.1}
RATE = 0.01


class Clock:
    """When the first epoch began and when each ended; each one's weights go to a folder."""

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._began, self._ends = time.monotonic(), list[float]()

    def tick(self, network: nn.Module) -> None:
        """An epoch has ended."""
        self._ends.append(time.monotonic())
        save_weights(self._weights / f"{len(self._ends):02}.safetensors", network)

    def run(self, share: int) -> dict[str, Any]:
        """What ``compare`` needs to know of a run; see ``sizes`` for the share."""
        return {"began": self._began, "ends": self._ends, "peak_memory_mb": _peak_memory() / 1e6, "share": share}


def _peak_memory() -> int:
    """The most memory that this process has had, in bytes."""
    if sys.platform == "linux":
        # Not getrusage, which on Linux counts what the process had that has started this one.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def classical(
    *, model: str, epochs: int, params: str, raw: str, weights: str, share: int = 1, **unused: object
) -> dict[str, Any]:
    """Train a model so many epochs the classical way, with the original programme's dropout.

    Args:
        share: see ``sizes``.
    """
    # Here, because the other tasks do without torchvision.
    from benchmark.classical import loaders, train_classically

    settings = load(Path(params))
    torch.manual_seed(settings.train.seed)
    network = build(model)
    set_dropout(network, DROPOUT)
    batches = [loaders(Path(raw), *size) for size in sizes(settings.split.train, settings.split.val, share)]
    clock = Clock(Path(weights))
    for both in batches:
        for _ in train_classically(network, *both, epochs, RATES.get(model, RATE)):
            clock.tick(network)
    return clock.run(share)


def own(
    *,
    model: str,
    epochs: int,
    dropout: float,
    params: str,
    splits: str,
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
    settings = load(Path(params))
    recipe = settings.models[model].model_copy(update={"epochs": epochs})
    asked = {"engine": engine or settings.train.engine, "precision": precision or settings.train.precision}
    shared = settings.train.model_copy(update=asked)
    execution = prepare(shared)
    if engine == "torch":
        # For the same bytes everywhere ``fit`` has PyTorch compute with one thread. Here it shows what it can do.
        torch.set_num_threads(execution.threads)
    data = load_splits(Path(splits), ("train", "val"), recipe.deskew)
    torch.manual_seed(shared.seed)
    network = build(model)
    set_dropout(network, dropout)
    clock = Clock(Path(weights))
    for train, val in sizes(len(data.train.labels), len(data.val.labels), share):
        few = data._replace(images={"train": data.train.first(train), "val": data.val.first(val)})
        tick = lambda epoch, network: clock.tick(network)  # noqa: E731
        fit(network, few, recipe, seed=shared.seed, execution=execution, on_epoch=tick)
    return clock.run(share)


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


def compilation(**unused: object) -> dict[str, Any]:
    """Seconds to load the kernels, and to compile them where they are not there yet."""
    began = time.monotonic()
    load_kernels()
    return {"seconds": time.monotonic() - began}


def twice(*, model: str, params: str, splits: str, weights: str, **unused: object) -> dict[str, Any]:
    """Train a model by its recipe twice in this process: the second time libraries and device are ready.

    Returns a run as ``own`` does, and the accuracies of its epochs, for ``cold`` and ``warm``.
    """
    recipe = load(Path(params)).models[model]
    shape: dict[str, Any] = {"epochs": recipe.epochs, "dropout": recipe.dropout}
    given: dict[str, Any] = {"model": model, "params": params, "splits": splits}
    runs: dict[str, dict[str, Any]] = {}
    for name in ("cold", "warm"):
        started = time.monotonic()
        runs[name] = own(**given, **shape, weights=f"{weights}/{name}") | {"started": started}
    for name, run in runs.items():
        run |= tested(**given, weights=f"{weights}/{name}", classically=False)
    return runs


def profiled(*, model: str, params: str, splits: str, capture: bool, **unused: object) -> dict[str, Any]:
    """Where the time of a training step goes; see ``profiling``."""
    # Here, because the other tasks do without the profiler.
    from benchmark.profiling import profile_steps

    return profile_steps(model, Path(params), Path(splits), capture)


def tested(
    *, model: str, params: str, splits: str, weights: str, classically: bool, **unused: object
) -> dict[str, Any]:
    """The test accuracy of each epoch's weights, on images as the model's recipe has them, or as the classical loop."""
    settings = load(Path(params))
    recipe = settings.models[model]
    deskew, tta = (False, False) if classically else (recipe.deskew, recipe.tta)
    data = load_splits(Path(splits), ("test",), deskew)
    network = build(model)
    execution = choose_engine(network, prepare(settings.train)).execution
    predictor = Predictor(network.to(execution.device), data.normalisation, execution, tta=tta, batch_size=BATCH_SIZE)
    accuracies = []
    for file in sorted(Path(weights).glob("*.safetensors")):
        load_weights(file, network)
        accuracies.append(predictor(data.test).accuracy)
    return {"test_accuracies": accuracies}


def limits(*, matrix: int, models: list[str], **unused: object) -> dict[str, Any]:
    """What the machine can do, and how much a training step asks of it: see ``matmul`` and ``flops``."""
    return {"speeds": matmul(matrix), "flops": flops(models)}


def matmul(matrix: int) -> dict[str, float]:
    """The best of five matrix multiplications, ``matrix`` wide, in FLOP a second, on all cores."""
    speeds: dict[str, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.randn(2, matrix, matrix).to(dtype)
        seconds = []
        for _ in range(6):
            began = time.monotonic()
            left @ right
            seconds.append(time.monotonic() - began)
        speeds[str(dtype).removeprefix("torch.")] = 2 * matrix**3 / min(seconds[1:])
    return speeds


def flops(models: list[str]) -> dict[str, int]:
    """Of a training step by the textbook: forward and backward pass, a multiplication and an addition each one."""
    from torch.utils.flop_counter import FlopCounterMode

    inputs, labels = torch.rand(BATCH_SIZE, 1, IMAGE_SIDE, IMAGE_SIDE), torch.zeros(BATCH_SIZE, dtype=torch.int64)
    counts: dict[str, int] = {}
    for model in models:
        network = build(model)
        with FlopCounterMode(display=False) as counter:
            train_step(network, torch.optim.SGD(network.parameters(), lr=0.1), inputs, labels, 0.1)
        counts[model] = counter.get_total_flops()
    return counts


_ALL = (classical, own, twice, profiled, compilation, tested, limits)
TASKS: dict[str, Callable[..., dict[str, Any]]] = {task.__name__: task for task in _ALL}

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    try:
        json.dump(TASKS[given.pop("task")](**given), sys.stdout)
    except InputError as error:
        sys.exit(f"error: {error}")
