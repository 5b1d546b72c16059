"""Every model trained several ways, in turns, each time in a process of its own."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmark import BATCH_SIZE, DROPOUT, TARGET_MODEL
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.processors import usable_processors
from mnist_cnn.settings.params import load
from tools.processes import started

# A whole run, as the recipes have it.
EPOCHS = 15

# By each way's name, the task of ``worker`` and its options. ``own`` is the project's ``fit`` by its kernels, ``torch``
# and ``bfloat16`` the same by PyTorch.
_TORCH = {"task": "own", "engine": "torch"}
WAYS: dict[str, dict[str, Any]] = {
    "classical": {"task": "classical"},
    "torch": _TORCH | {"precision": "float32"},
    "bfloat16": _TORCH | {"precision": "bfloat16"},
    "own": {"task": "own", "engine": "auto", "precision": "float32"},
}
# What the kernels are compared with, and how figures of it end by name.
OTHERS = {"classical": "", "torch": "_torch", "bfloat16": "_bfloat16"}
# The slow ways show their speed in one part of so many of an epoch, if that is as many images.
SHARE, ENOUGH = 4, 5000


class Row(NamedTuple):
    """A line of the table: a model, and the dropout that the project's own way trains it with."""

    name: str
    model: str
    dropout: float


# From a task of ``worker`` and its options to what it found.
Work = Callable[..., dict[str, Any]]
Runs = list[dict[str, Any]]
# Runs by the names of ways, and of rows.
Turns = dict[str, dict[str, Runs]]


def compare(params: Path, raw: Path, splits: Path, repetitions: int, epochs: int, matrix: int) -> dict[str, Any]:
    """Train every model each of the ``WAYS``, at most an epoch at a time in turns; all that was found.

    Args:
        raw: a folder with MNIST as torchvision lays it out.
        splits: what the stage ``split`` made of it.
        epochs: of the way to the target; all other runs have one.
        matrix: side of the matrices that tell what the machine can do.

    Raises:
        InputError: something is missing or out of range, or a measurement failed.
    """
    for name, count in (("repetitions", repetitions), ("epochs", epochs), ("matrix", matrix)):
        if count < 1:
            raise InputError(f"{name}: {count} is not allowed: at least 1")
    for needed in (raw, splits):
        if not needed.is_dir():
            raise InputError(f"{needed}: is not there; 'dvc repro split' makes it")
    settings = load(params)
    if settings.data != "mnist":
        raise InputError(f"{params}: data: {settings.data!r} is not allowed here: the classical loop is of MNIST")
    if TARGET_MODEL not in settings.models:
        raise InputError(f"{params}: models: {TARGET_MODEL} is missing; the way to the target is measured on it")
    names, images = list(settings.models), settings.split.train
    rows = [Row(name, name, recipe.dropout) for name, recipe in settings.models.items()]
    # Its recipe does without dropout; the classical loop has the original programme's.
    rows.append(Row(f"{TARGET_MODEL}, dropout {DROPOUT}", TARGET_MODEL, DROPOUT))

    with tempfile.TemporaryDirectory() as scratch:

        def work(task: str, row: Row, epochs: int = 1, weights: str = "unused", **more: object) -> dict[str, Any]:
            options = {
                "task": task, "model": row.model, "epochs": epochs, "dropout": row.dropout, "params": str(params),
                "raw": str(raw), "splits": str(splits), "weights": str(Path(scratch) / weights),
            }  # fmt: skip
            # The kernels are compiled anew where they are looked for in a folder of this run's own.
            cache = None if more.pop("compiled", True) else Path(scratch) / f"kernels-{weights}"
            return run_worker(options | more, cache=cache)

        counted = work("limits", rows[0], matrix=matrix, models=names)
        compiled = work("compilation", rows[0], compiled=False)["seconds"]
        work("compilation", rows[0])
        flops = {row.name: counted["flops"][row.model] * images / BATCH_SIZE for row in rows}
        turns = take_turns(work, rows, repetitions, images)
        race = race_to_target(work, rows, settings.targets.test_accuracy, epochs)

    speeds = counted["speeds"]
    limit = max(speeds.values())
    models = {row.name: summarise(runs_of(row, turns), images, flops[row.name], limit, compiled) for row in rows}
    seconds = sum(median(map(epoch_seconds, turns["own"][name])) for name in names)
    return {
        "machine": describe_machine() | {f"{precision}_flops": round(speed) for precision, speed in speeds.items()},
        "repetitions": repetitions,
        "matrix": matrix,
        "images": {"train": images, "val": settings.split.val},
        "share": share_of(images),
        "compile_seconds": round(compiled, 2),
        "models": models,
        **totals({way: [runs[name] for name in names] for way, runs in turns.items()}, compiled),
        "peak_memory_mb": max(models[name]["peak_memory_mb"] for name in names),
        "share_of_limit": round(sum(flops[name] for name in names) / seconds / limit, 3),
        **race,
    }


def take_turns(work: Work, rows: list[Row], repetitions: int, images: int) -> Turns:
    """Each row trained each way, so many times; the classical loop knows no rows beyond the models."""
    turns: Turns = {way: {} for way in WAYS}
    turn = [(way, row) for row in rows for way in WAYS if way != "classical" or row.name == row.model]
    planned, started = repetitions * len(turn), time.monotonic()
    for done, (way, row) in enumerate(repetitions * turn, start=1):
        share = 1 if way == "own" else share_of(images)
        run = work(row=row, share=share, **WAYS[way])
        turns[way].setdefault(row.name, []).append(run)
        left = (time.monotonic() - started) / done * (planned - done) / 60
        print(
            f"[{done}/{planned}] {row.name}, {way}: {images / epoch_seconds(run):,.0f} images/s; about {left:.0f} min "
            "left, and then the way to the target",
            flush=True,
        )
    return turns


def share_of(images: int) -> int:
    """One part of how many of an epoch the slow ways are timed on."""
    return SHARE if images >= SHARE * ENOUGH else 1


def runs_of(row: Row, turns: Turns) -> dict[str, Runs]:
    """A row's runs by way: those of the classical loop are its model's."""
    return {way: runs[row.model if way == "classical" else row.name] for way, runs in turns.items()}


def race_to_target(work: Work, rows: list[Row], target: float, epochs: int) -> dict[str, Any]:
    """Both ways from a cold start to a test accuracy, which is measured when both have ended."""
    row = next(row for row in rows if row.name == TARGET_MODEL)
    print(f"{TARGET_MODEL} to {target} %, both ways from a cold start, {epochs} epochs each...", flush=True)
    runs = {task: work(task, row, epochs, task, compiled=False) for task in ("own", "classical")}
    own, classical = (
        way_to_target(
            run, work("tested", row, weights=task, classically=task == "classical")["test_accuracies"], target
        )
        for task, run in runs.items()
    )
    sooner = round(classical["seconds"] / own["seconds"], 2) if own["reached"] else None
    return {
        "time_to_target": {"test_accuracy": target, "own": own, "classical": classical},
        "time_to_target_speedup": sooner,
    }


def run_worker(options: dict[str, Any], timeout: float | None = None, cache: Path | None = None) -> dict[str, Any]:
    """What ``worker`` finds by a task and its options, and ``spawned``, when its process was started.

    Args:
        timeout: in seconds.
        cache: where the compiled kernels are, or will be; by default in the environment.

    Raises:
        InputError: it failed, or was not ready after ``timeout`` seconds.
    """
    environment = os.environ if cache is None else os.environ | {"MNIST_CNN_CACHE": str(cache)}
    spawned = time.monotonic()
    command = [sys.executable, "-m", "benchmark.worker", json.dumps(options)]
    failed = f"benchmark: {options['task']} of {options['model']} failed"
    try:
        with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
            said, faults = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise InputError(f"{failed}: not ready after {timeout:.0f} s") from None
    if process.returncode:
        reason = (faults.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"{failed}: {reason}")
    found: dict[str, Any] = json.loads(said)
    return found | {"spawned": spawned}


def epoch_seconds(run: dict[str, Any]) -> float:
    """Of a run's first epoch, its evaluation included.

    Of a run on a share of the images, extrapolated: the first of its two runs on one batch, and the share without what
    the second of them took, so many times.
    """
    times: list[float] = [run["began"], *run["ends"]]
    share: int = run["share"]
    if share == 1:
        return times[1] - times[0]
    first, second, part = (end - began for began, end in pairwise(times))
    return first + share * (part - second)


def start_seconds(run: dict[str, Any]) -> float:
    """From the start of the process to the first epoch."""
    seconds: float = run["began"] - run["spawned"]
    return seconds


def whole_seconds(run: dict[str, Any], extra: float = 0.0) -> float:
    """A whole run from a cold start, extrapolated from one epoch; ``extra`` is what comes before."""
    return extra + start_seconds(run) + EPOCHS * epoch_seconds(run)


def spread(values: list[float], digits: int) -> dict[str, float]:
    """Median, least and largest."""
    return {
        "median": round(median(values), digits),
        "least": round(min(values), digits),
        "largest": round(max(values), digits),
    }


def speedups(theirs: Runs, mine: Runs) -> list[float]:
    """How many times sooner an epoch ends, repetition by repetition."""
    return [epoch_seconds(slow) / epoch_seconds(fast) for slow, fast in zip(theirs, mine, strict=True)]


def summarise(runs: dict[str, Runs], images: int, flops: float, limit: float, compiled: float) -> dict[str, Any]:
    """A model's figures from its runs by way, which were made in turns: each ratio is of two of the same turn.

    Args:
        flops: of an epoch.
        limit: FLOP a second.
    """
    own = runs["own"]
    cold = [
        whole_seconds(theirs) / whole_seconds(mine, compiled)
        for theirs, mine in zip(runs["classical"], own, strict=True)
    ]
    figures: dict[str, Any] = {}
    for way, ending in OTHERS.items():
        ratios = spread(speedups(runs[way], own), 2)
        figures |= {f"speedup{ending}": ratios["median"], f"speedup{ending}_spread": ratios}
    figures["speedup_cold"] = round(median(cold), 2)
    for way, those in runs.items():
        ending = "" if way == "own" else f"_{way}"
        seconds = median(epoch_seconds(run) for run in those)
        figures |= {
            f"images_per_second{ending}": spread([images / epoch_seconds(run) for run in those], 0),
            f"start_seconds{ending}": round(median(start_seconds(run) for run in those), 2),
            f"peak_memory_mb{ending}": round(max(run["peak_memory_mb"] for run in those)),
            f"share_of_limit{ending}": round(flops / seconds / limit, 3),
        }
    return figures


def totals(runs: dict[str, list[Runs]], compiled: float) -> dict[str, Any]:
    """Seconds summed over models, by repetition; the median of their ratios, and of the warm ones the spread.

    Args:
        runs: by way, those of each model.
    """

    def summed(way: str, repetition: int, seconds: Callable[[dict[str, Any]], float]) -> float:
        return sum(seconds(of_model[repetition]) for of_model in runs[way])

    repetitions = range(len(runs["own"][0]))
    found: dict[str, Any] = {}
    for way, ending in OTHERS.items():
        ratios = [summed(way, n, epoch_seconds) / summed("own", n, epoch_seconds) for n in repetitions]
        found |= {
            f"speedup{ending}_total": round(median(ratios), 2),
            f"speedup{ending}_total_spread": spread(ratios, 2),
        }
    # The kernels are compiled once for all models.
    cold = [summed("classical", n, whole_seconds) / (compiled + summed("own", n, whole_seconds)) for n in repetitions]
    return found | {"speedup_total_cold": round(median(cold), 2)}


def way_to_target(run: dict[str, Any], test_accuracies: list[float], target: float) -> dict[str, Any]:
    """The first epoch at or above the target and the seconds to its end; the last one's where none is."""
    reached = [position for position, accuracy in enumerate(test_accuracies) if accuracy >= target]
    position = reached[0] if reached else len(test_accuracies) - 1
    return {
        "reached": bool(reached),
        "epoch": position + 1,
        "seconds": round(run["ends"][position] - run["spawned"], 1),
        "test_accuracies": test_accuracies,
    }


def describe_machine() -> dict[str, object]:
    """Processor, memory and versions; nothing that names the machine itself."""
    processor = platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    return {
        "processor": processor,
        "cores": usable_processors(),
        "memory_gib": round(memory),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
