"""The benchmark as a whole: every model trained both ways, in turns, each time in a process of its own."""

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

from benchmark.table import render
from mnist_cnn.errors import InputError
from mnist_cnn.files import write_text
from mnist_cnn.params import load
from stages import cli

# A whole run, and a step, as the recipes have them.
EPOCHS = 15
BATCH_SIZE = 128
TARGET_MODEL = "model_5"


class Row(NamedTuple):
    """A line of the table: a model, and the dropout that the project's own way trains it with."""

    name: str
    model: str
    dropout: float


Work = Callable[..., dict[str, Any]]
Runs = list[dict[str, Any]]


def main(params: Path, raw: Path, parts: Path, repetitions: int, table: Path, numbers: Path) -> None:
    """Train every model the classical way and by ``fit``, one epoch at a time in turns; write table and numbers."""
    if repetitions < 1:
        raise InputError(f"repetitions: {repetitions} is not allowed: at least 1")
    for needed in (raw, parts):
        if not needed.is_dir():
            raise InputError(f"{needed}: is not there; 'dvc repro split' makes it")
    settings = load(params)
    if TARGET_MODEL not in settings.models:
        raise InputError(f"{params}: models: {TARGET_MODEL} is missing; the way to the target is measured on it")
    rows = [Row(name, name, recipe.dropout) for name, recipe in settings.models.items()]
    # Its recipe does without the dropout that its network was written with; the classical loop has it.
    rows.append(Row(f"{TARGET_MODEL}, dropout 0.1", TARGET_MODEL, 0.1))
    images = settings.split.train

    with tempfile.TemporaryDirectory() as scratch:

        def work(task: str, row: Row, epochs: int = 1, weights: str = "unused") -> dict[str, Any]:
            """See ``worker``."""
            return run_worker(
                task=task, model=row.model, epochs=epochs, dropout=row.dropout,
                params=params, raw=raw, parts=parts, weights=Path(scratch) / weights,
            )  # fmt: skip

        speeds, compiled = work("product", rows[0]), work("compile", rows[0])["seconds"]
        flops = {row.name: work("flops", row)["flops"] * -(-images // BATCH_SIZE) for row in rows}
        classical, own = take_turns(work, rows, repetitions, images)
        race = race_to_target(work, rows, settings.targets.test_accuracy)

    del speeds["spawned"]
    limit = max(speeds.values())
    names = list(settings.models)
    models = {
        row.name: summarise(classical[row.model], own[row.name], images, flops[row.name], limit, compiled)
        for row in rows
    }
    result = {
        "machine": describe_machine() | {f"{precision}_flops": round(speed) for precision, speed in speeds.items()},
        "repetitions": repetitions,
        "images": {"train": images, "val": settings.split.val},
        "compile_seconds": round(compiled, 2),
        "models": models,
        **totals([(classical[name], own[name]) for name in names], compiled),
        "peak_memory_mb": max(models[name]["peak_memory_mb"] for name in names),
        "share_of_limit": round(
            sum(flops[name] for name in names) / sum(median(map(epoch_seconds, own[name])) for name in names) / limit,
            3,
        ),
        **race,
    }
    write_text(numbers, json.dumps(result, indent=2) + "\n")
    write_text(table, render(result))
    print(f"{table}, {numbers}")


def take_turns(work: Work, rows: list[Row], repetitions: int, images: int) -> tuple[dict[str, Runs], dict[str, Runs]]:
    """An epoch of each model by the classical loop, and of each row by ``fit``, so many times; runs by name."""
    classical: dict[str, Runs] = {row.model: [] for row in rows}
    own: dict[str, Runs] = {row.name: [] for row in rows}
    turn = [(task, row) for row in rows for task in ("classical", "fit") if task == "fit" or row.name == row.model]
    planned, started = repetitions * len(turn), time.monotonic()
    for done, (task, row) in enumerate(repetitions * turn, start=1):
        run = work(task, row)
        (own if task == "fit" else classical)[row.name].append(run)
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
    tasks = {"fit": "cold", "classical": "classical"}
    runs = {way: work(task, row, EPOCHS, way) for way, task in tasks.items()}
    ways = {
        way: way_to_target(run, work("test", row, weights=way)["test_accuracies"], target) for way, run in runs.items()
    }
    return {
        "time_to_target": {"test_accuracy": target, **ways},
        "time_to_target_speedup": round(ways["classical"]["seconds"] / ways["fit"]["seconds"], 2),
    }


def run_worker(**options: object) -> dict[str, Any]:
    """What ``benchmark.worker`` says, and ``spawned``: when its process was started.

    Raises:
        InputError: it failed.
    """
    command = [sys.executable, "-m", "benchmark.worker"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    spawned = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"benchmark: {options['task']} of {options['model']} failed: {reason}")
    return {"spawned": spawned, **json.loads(done.stdout)}


def epoch_seconds(run: dict[str, Any]) -> float:
    """Of a run's first epoch, its evaluation included."""
    seconds: float = run["ends"][0] - run["began"]
    return seconds


def start_seconds(run: dict[str, Any]) -> float:
    """From the start of the process to the first epoch."""
    seconds: float = run["began"] - run["spawned"]
    return seconds


def whole_seconds(run: dict[str, Any], extra: float = 0.0) -> float:
    """A whole run from a cold start, foretold from its first epoch; ``extra`` is what comes before."""
    return extra + start_seconds(run) + EPOCHS * epoch_seconds(run)


def spread(values: list[float], digits: int) -> dict[str, float]:
    """Median, least and largest."""
    return {
        "median": round(median(values), digits),
        "least": round(min(values), digits),
        "largest": round(max(values), digits),
    }


def summarise(classical: Runs, own: Runs, images: int, flops: int, limit: float, compiled: float) -> dict[str, Any]:
    """A model's figures from its runs, which were made in turns: each ratio is of two that followed each other.

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


if __name__ == "__main__":
    cli.run(main)
