"""Every model trained both ways, in turns, each time in a process of its own."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmark import BATCH_SIZE
from mnist_cnn.errors import InputError
from mnist_cnn.params import load

# A whole run, as the recipes have it.
EPOCHS = 15
TARGET_MODEL = "model_5"


class Row(NamedTuple):
    """A line of the table: a model, and the dropout that the project's own way trains it with."""

    name: str
    model: str
    dropout: float


# From a task of ``worker`` and its options to what it found.
Work = Callable[..., dict[str, Any]]
Runs = list[dict[str, Any]]


def compare(params: Path, raw: Path, parts: Path, repetitions: int) -> dict[str, Any]:
    """Train every model the classical way and by ``fit``, one epoch at a time in turns; all that was found.

    Args:
        raw: a folder with MNIST as torchvision lays it out.
        parts: what the split made of it.

    Raises:
        InputError: something is missing or out of range, or a measurement failed.
    """
    if repetitions < 1:
        raise InputError(f"repetitions: {repetitions} is not allowed: at least 1")
    for needed in (raw, parts):
        if not needed.is_dir():
            raise InputError(f"{needed}: is not there; 'dvc repro split' makes it")
    settings = load(params)
    if TARGET_MODEL not in settings.models:
        raise InputError(f"{params}: models: {TARGET_MODEL} is missing; the way to the target is measured on it")
    names, images = list(settings.models), settings.split.train
    rows = [Row(name, name, recipe.dropout) for name, recipe in settings.models.items()]
    # Its recipe does without the dropout that its network was written with; the classical loop has it.
    rows.append(Row(f"{TARGET_MODEL}, dropout 0.1", TARGET_MODEL, 0.1))

    with tempfile.TemporaryDirectory() as scratch:

        def work(task: str, row: Row, epochs: int = 1, weights: str = "unused") -> dict[str, Any]:
            return run_worker(
                task=task, model=row.model, epochs=epochs, dropout=row.dropout, params=str(params), raw=str(raw),
                parts=str(parts), weights=str(Path(scratch) / weights),
            )  # fmt: skip

        speeds, compiled = work("product", rows[0]), work("compilation", rows[0])["seconds"]
        flops = {row.name: work("flops", row)["flops"] * images / BATCH_SIZE for row in rows}
        classical, own = take_turns(work, rows, repetitions, images)
        race = race_to_target(work, rows, settings.targets.test_accuracy)

    limit = max(speeds.values())
    models = {
        row.name: summarise(classical[row.model], own[row.name], images, flops[row.name], limit, compiled)
        for row in rows
    }
    seconds = sum(median(map(epoch_seconds, own[name])) for name in names)
    return {
        "machine": describe_machine() | {f"{precision}_flops": round(speed) for precision, speed in speeds.items()},
        "repetitions": repetitions,
        "images": {"train": images, "val": settings.split.val},
        "compile_seconds": round(compiled, 2),
        "models": models,
        **totals([(classical[name], own[name]) for name in names], compiled),
        "peak_memory_mb": max(models[name]["peak_memory_mb"] for name in names),
        "share_of_limit": round(sum(flops[name] for name in names) / seconds / limit, 3),
        **race,
    }


def take_turns(work: Work, rows: list[Row], repetitions: int, images: int) -> tuple[dict[str, Runs], dict[str, Runs]]:
    """An epoch of each model by the classical loop and of each row by ``fit``, so many times; runs by name."""
    classical: dict[str, Runs] = {row.model: [] for row in rows}
    own: dict[str, Runs] = {row.name: [] for row in rows}
    turn = [(task, row) for row in rows for task in ("classical", "own") if task == "own" or row.name == row.model]
    planned, started = repetitions * len(turn), time.monotonic()
    for done, (task, row) in enumerate(repetitions * turn, start=1):
        run = work(task, row)
        (own if task == "own" else classical)[row.name].append(run)
        left = (time.monotonic() - started) / done * (planned - done) / 60
        print(
            f"[{done}/{planned}] {row.name}, {task}: {images / epoch_seconds(run):,.0f} images/s; about {left:.0f} min "
            "left, and then the way to the target",
            flush=True,
        )
    return classical, own


def race_to_target(work: Work, rows: list[Row], target: float) -> dict[str, Any]:
    """Both ways from a cold start to a test accuracy, which is measured when both have ended."""
    row = next(row for row in rows if row.name == TARGET_MODEL)
    print(f"{TARGET_MODEL} to {target} %, both ways from a cold start, {EPOCHS} epochs each...", flush=True)
    runs = {task: work(task, row, EPOCHS, task) for task in ("cold", "classical")}
    measured = {"cold": "tested_as_seen", "classical": "tested_as_written"}
    own, classical = (
        way_to_target(run, work(measured[task], row, weights=task)["test_accuracies"], target)
        for task, run in runs.items()
    )
    sooner = round(classical["seconds"] / own["seconds"], 2) if own["reached"] else None
    return {
        "time_to_target": {"test_accuracy": target, "own": own, "classical": classical},
        "time_to_target_speedup": sooner,
    }


def run_worker(**options: object) -> dict[str, Any]:
    """What ``worker`` finds; of timed runs also ``spawned``, when the process was started.

    Raises:
        InputError: it failed.
    """
    spawned = time.monotonic()
    command = [sys.executable, "-m", "benchmark.worker", json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"benchmark: {options['task']} of {options['model']} failed: {reason}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found | ({"spawned": spawned} if "began" in found else {})


def epoch_seconds(run: dict[str, Any]) -> float:
    """Of a run's first epoch, its evaluation included."""
    seconds: float = run["ends"][0] - run["began"]
    return seconds


def start_seconds(run: dict[str, Any]) -> float:
    """From the start of the process to the first epoch."""
    seconds: float = run["began"] - run["spawned"]
    return seconds


def whole_seconds(run: dict[str, Any], extra: float = 0.0) -> float:
    """A whole run from a cold start, foretold from one epoch; ``extra`` is what comes before."""
    return extra + start_seconds(run) + EPOCHS * epoch_seconds(run)


def spread(values: list[float], digits: int) -> dict[str, float]:
    """Median, least and largest."""
    return {
        "median": round(median(values), digits),
        "least": round(min(values), digits),
        "largest": round(max(values), digits),
    }


def summarise(classical: Runs, own: Runs, images: int, flops: float, limit: float, compiled: float) -> dict[str, Any]:
    """A model's figures from its runs, which were made in turns: each ratio is of two of the same turn.

    Args:
        flops: of an epoch.
        limit: FLOP a second.
    """
    ratios = [epoch_seconds(theirs) / epoch_seconds(mine) for theirs, mine in zip(classical, own, strict=True)]
    cold = [whole_seconds(theirs) / whole_seconds(mine, compiled) for theirs, mine in zip(classical, own, strict=True)]
    figures: dict[str, Any] = {
        "speedup": round(median(ratios), 2),
        "speedup_spread": spread(ratios, 2),
        "speedup_cold": round(median(cold), 2),
    }
    for ending, runs in (("", own), ("_classical", classical)):
        seconds = median(epoch_seconds(run) for run in runs)
        figures |= {
            f"images_per_second{ending}": spread([images / epoch_seconds(run) for run in runs], 0),
            f"start_seconds{ending}": round(median(start_seconds(run) for run in runs), 2),
            f"peak_memory_mb{ending}": round(max(run["peak_memory_mb"] for run in runs)),
            f"share_of_limit{ending}": round(flops / seconds / limit, 3),
        }
    return figures


def totals(pairs: list[tuple[Runs, Runs]], compiled: float) -> dict[str, float]:
    """Seconds summed over models, by repetition; the median of their ratios."""
    warm, cold = [], []
    for repetition in range(len(pairs[0][0])):
        runs = [(classical[repetition], own[repetition]) for classical, own in pairs]
        warm.append(sum(epoch_seconds(run) for run, _ in runs) / sum(epoch_seconds(run) for _, run in runs))
        # The kernels are compiled once for all models.
        mine = compiled + sum(whole_seconds(run) for _, run in runs)
        cold.append(sum(whole_seconds(run) for run, _ in runs) / mine)
    return {"speedup_total": round(median(warm), 2), "speedup_total_cold": round(median(cold), 2)}


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
        "cores": os.cpu_count(),
        "memory_gib": round(memory),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
