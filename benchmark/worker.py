"""One measurement in a process of its own, as JSON on standard output. Times are of the machine's monotonic clock."""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark.classical import BATCH_SIZE, train_classically
from mnist_cnn import metrics, runtime
from mnist_cnn.checkpoint import load_weights, save_weights
from mnist_cnn.data import load_images, load_normalisation
from mnist_cnn.engine import Compute, evaluation_pass
from mnist_cnn.layers import set_dropout
from mnist_cnn.models import build
from mnist_cnn.native.build import load as build_kernels
from mnist_cnn.params import load
from mnist_cnn.training import fit, train_step
from stages import cli

# What the networks with dropout were written with.
DROPOUT = 0.1
# The brief's rate for model_5. The plain models are timed at a lower one, which none of them leaves for infinity.
RATES = {"model_5": 0.1}
RATE = 0.01


def main(
    task: str, model: str, epochs: int, dropout: float, params: Path, raw: Path, parts: Path, weights: Path
) -> None:
    """Do one ``task`` and print what it took.

    classical, fit: train a model so many epochs, the one way or the other; weights of each epoch go to a folder.
    cold: as ``fit``, with the kernels compiled anew. test: the test accuracy of each file of weights in the folder.
    product: the fastest large matrix products. flops: of a training step of the model. compile: the kernels.
    """
    tasks = {
        "classical": lambda: _timed(_classical(model, epochs, params, raw), weights),
        "fit": lambda: _timed(_fit(model, epochs, dropout, params, parts), weights),
        "cold": lambda: _cold(model, epochs, dropout, params, parts, weights),
        "test": lambda: _test(model, parts, weights),
        "product": _product,
        "flops": lambda: _flops(model),
        "compile": _compile,
    }
    json.dump(tasks[task](), sys.stdout)


def _timed(epochs: Iterator[tuple[nn.Module, float]], weights: Path) -> dict[str, object]:
    """When the first epoch began and each one ended; ``epochs`` gives None as the first begins."""
    ends, accuracies = [], []
    next(epochs)
    began = time.monotonic()
    for network, accuracy in epochs:
        ends.append(time.monotonic())
        accuracies.append(accuracy)
        save_weights(weights / f"{len(ends):02}.safetensors", network)
    unit = 1024 if sys.platform == "linux" else 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"began": began, "ends": ends, "val_accuracies": accuracies, "peak_memory_mb": peak / 1e6}


def _classical(model: str, epochs: int, params: Path, raw: Path) -> Iterator:
    settings = load(params)
    torch.manual_seed(settings.train.seed)
    network = build(model)
    set_dropout(network, DROPOUT)
    yield None
    with tempfile.TemporaryDirectory() as scratch:
        rate = RATES.get(model, RATE)
        for accuracy in train_classically(
            network, raw, Path(scratch), settings.split.train, settings.split.val, epochs, rate
        ):
            yield network, accuracy


def _fit(model: str, epochs: int, dropout: float, params: Path, parts: Path) -> Iterator:
    settings = load(params)
    recipe = settings.models[model].model_copy(update={"epochs": epochs})
    compute = runtime.prepare(settings.train)
    train, val = load_images(parts / "train.safetensors"), load_images(parts / "val.safetensors")
    normalisation = load_normalisation(parts / "statistics.json")
    torch.manual_seed(settings.train.seed)
    network = build(model, dropout)
    yield None
    for epoch in fit(network, train, val, normalisation, recipe, seed=settings.train.seed, compute=compute):
        yield epoch.delivered, epoch.val_accuracy


def _cold(model: str, epochs: int, dropout: float, params: Path, parts: Path, weights: Path) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as scratch:
        # Where the compiled kernels are looked for.
        sys.prefix = scratch
        return _timed(_fit(model, epochs, dropout, params, parts), weights)


def _compile() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as scratch:
        sys.prefix = scratch
        began = time.monotonic()
        build_kernels()
        return {"seconds": time.monotonic() - began}


def _test(model: str, parts: Path, weights: Path) -> dict[str, object]:
    images, normalisation = load_images(parts / "test.safetensors"), load_normalisation(parts / "statistics.json")
    network, accuracies = build(model), []
    for file in sorted(weights.glob("*.safetensors")):
        load_weights(file, network)
        evaluated = evaluation_pass(network, BATCH_SIZE, Compute(torch.device("cpu")))
        predictions = metrics.predict(evaluated, images, normalisation, BATCH_SIZE, torch.device("cpu"))
        accuracies.append(metrics.accuracy(predictions))
    return {"test_accuracies": accuracies}


def _product() -> dict[str, object]:
    """The best of five products of two matrices 2,048 wide, in FLOP a second, on all cores."""
    size = 2048
    speeds: dict[str, object] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        left, right = torch.randn(2, size, size).to(dtype)
        seconds = []
        for _ in range(6):
            began = time.monotonic()
            left @ right
            seconds.append(time.monotonic() - began)
        speeds[name] = 2 * size**3 / min(seconds[1:])
    return speeds


def _flops(model: str) -> dict[str, object]:
    """Of a training step by the textbook: forward and backward pass, a multiplication and an addition each one."""
    network = build(model)
    inputs, labels = torch.rand(BATCH_SIZE, 1, 28, 28), torch.zeros(BATCH_SIZE, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        train_step(network, torch.optim.SGD(network.parameters(), lr=0.1), inputs, labels, 0.1)
    return {"flops": counter.get_total_flops()}


if __name__ == "__main__":
    cli.run(main)
