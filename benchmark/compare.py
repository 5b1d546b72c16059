"""The benchmark as a whole: every model trained both ways, in turns, each time in a process of its own."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
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


def main(params: Path, raw: Path, parts: Path, repetitions: int, table: Path, numbers: Path) -> None:
    """Train every model the classical way and by ``fit``, one epoch at a time in turns; write table and numbers."""
    if repetitions < 1:
        raise InputError(f"repetitions: {repetitions} is not allowed: at least 1")
    for needed in (raw, parts):
        if not needed.is_dir():
            raise InputError(f"{needed}: is not there; 'dvc repro split' makes it")
    settings = load(params)
    rows = [Row(name, name, recipe.dropout) for name, recipe in settings.models.items()]
    # Its recipe does without the dropout that its network was written with; the classical loop has it.
    rows.append(Row("model_5, dropout 0.1", "model_5", 0.1))
    images = settings.split.train

    with tempfile.TemporaryDirectory() as scratch:

        def work(task: str, row: Row, weights: Path = Path(scratch) / "unused", epochs: int = 1) -> dict[str, Any]:
            """See ``worker``."""
            return run_worker(
                task=task, model=row.model, epochs=epochs, dropout=row.dropout,
                params=params, raw=raw, parts=parts, weights=weights,
            )  # fmt: skip

        product, compiled = work("product", rows[0]), work("compile", rows[0])["seconds"]
        flops = {row.name: work("flops", row)["flops"] for row in rows}
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        started, done, planned = time.monotonic(), 0, repetitions * (2 * len(rows) - 1)
        for _ in range(repetitions):
            for row in rows:
                for task in ("classical", "fit"):
                    if task == "classical" and row.name != row.model:
                        continue
                    found = work(task, row)
                    runs.setdefault((row.name, task), []).append(found)
                    done += 1
                    left = (time.monotonic() - started) / done * (planned - done) / 60
                    print(
                        f"[{done}/{planned}] {row.name}, {task}: {images / epoch_seconds(found):,.0f} images/s; "
                        f"about {left:.0f} min left, and then the way to the target",
                        flush=True,
                    )
        for row in rows:
            runs.setdefault((row.name, "classical"), runs[row.model, "classical"])

        print(f"{TARGET_MODEL} to {settings.targets.test_accuracy} %, both ways from a cold start...", flush=True)
        target_row = next(row for row in rows if row.name == TARGET_MODEL)
        ways = {}
        for name, task in (("fit", "cold"), ("classical", "classical")):
            weights = Path(scratch) / name
            taken = work(task, target_row, weights, EPOCHS)
            tested = work("test", target_row, weights)["test_accuracies"]
            ways[name] = way_to_target(taken, tested, settings.targets.test_accuracy)

    limit = max(product.values())
    models = {
        row.name: summarise(
            runs[row.name, "classical"],
            runs[row.name, "fit"],
            images,
            flops[row.name] * -(-images // BATCH_SIZE),
            limit,
            compiled,
        )
        for row in rows
    }
    own = [row.name for row in rows if row.name == row.model]
    result = {
        "machine": describe_machine() | {f"{name}_flops": round(speed) for name, speed in product.items()},
        "repetitions": repetitions,
        "compile_seconds": round(compiled, 2),
        "models": models,
        **totals([(runs[name, "classical"], runs[name, "fit"]) for name in own], compiled),
        "peak_memory_mb": max(models[name]["peak_memory_mb"] for name in own),
        "time_to_target": ways | {"test_accuracy": settings.targets.test_accuracy},
        "time_to_target_speedup": round(ways["classical"]["seconds"] / ways["fit"]["seconds"], 2),
    }
    write_text(numbers, json.dumps(result, indent=2) + "\n")
    write_text(table, render(result))
    print(f"{table}, {numbers}")


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


def summarise(
    classical: list[dict[str, Any]], own: list[dict[str, Any]], images: int, flops: int, limit: float, compiled: float
) -> dict[str, Any]:
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


def totals(pairs: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]], compiled: float) -> dict[str, float]:
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
