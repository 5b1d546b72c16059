"""Training on a GPU: its tests, the models by their recipes, the way to the target, a profile; one report.

Whatever fails is named in the report, which is written anew after each part, and the other parts go on.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from benchmark import TARGET_MODEL
from benchmark.compare import run_worker, way_to_target
from mnist_cnn.common import cli
from mnist_cnn.common.files import write_text
from mnist_cnn.common.processors import usable_processors
from mnist_cnn.common.yaml import parse_yaml
from mnist_cnn.engine.device import resolve_device
from mnist_cnn.report.markdown import table
from mnist_cnn.settings.params import Params, load


class Settings(NamedTuple):
    """What every part needs.

    ``params`` is a copy of params.yaml that names the device, ``scratch`` a folder for all that is made on the way,
    ``committed`` the folder with the models' figures by the processor.
    """

    device: str
    params: Path
    splits: Path
    committed: Path
    scratch: Path

    def loaded(self) -> Params:
        """What is in ``params``."""
        return load(self.params)


class PartError(Exception):
    """A part failed; ``text`` is what it found, or said, nevertheless."""

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(reason)
        self.text = text


class Part(NamedTuple):
    """A heading, the work under it, and the share of all time that has passed at its end at the latest.

    The work gets the moment at which it has to end, by the monotonic clock, and returns Markdown.
    """

    heading: str
    work: Callable[[Settings, float], str]
    until: float


def main(device: str, params: Path, splits: Path, committed: Path, report: Path, seconds: float) -> None:
    """Run all parts on a device within so many seconds; write the report. Status 1 where a part failed.

    Where the environment names a folder ``OUT`` for results, the report is copied there.

    Args:
        device: where to compute.
        params: the settings.
        splits: the folder of the splits.
        committed: the committed metrics, to compare with.
        report: written: the report, Markdown.
        seconds: how long all may take.

    Raises:
        InputError: the machine does not have the device.
    """
    began, failed = time.monotonic(), []
    resolve_device(device)
    text = [f"# Training on {device}", "", describe(device), ""]
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(device, Path(scratch) / "params.yaml", splits, committed, Path(scratch))
        write_text(settings.params, with_device(params.read_text(encoding="utf-8"), device))
        for part in PARTS:
            print(f"[{time.monotonic() - began:.0f} s] {part.heading}...", flush=True)
            found, reason = attempt(part, settings, began + part.until * seconds)
            failed += [part.heading] if reason else []
            text += [f"## {part.heading}", "", *([f"**Failed: {reason}**", ""] if reason else []), found, ""]
            publish(report, "\n".join(text).rstrip() + "\n")
    print(f"[{time.monotonic() - began:.0f} s] {report}")
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")


def attempt(part: Part, settings: Settings, end: float) -> tuple[str, str | None]:
    """What a part found, and in a line why it failed, if it did."""
    try:
        return part.work(settings, end), None
    except PartError as error:
        return error.text, str(error)
    except Exception as error:  # the parts that follow must have their turn
        return "", (str(error).strip().splitlines() or [""])[-1] or type(error).__name__


def publish(report: Path, text: str) -> None:
    """Write the report, and a copy where results are wanted."""
    write_text(report, text)
    if out := os.environ.get("OUT"):
        shutil.copy(report, Path(out) / report.name)


def with_device(params: str, device: str) -> str:
    """params.yaml with another ``train.device``."""
    settings = parse_yaml(params, "params.yaml")
    settings["train"]["device"] = device
    # JSON is YAML, too.
    return json.dumps(settings)


def describe(device: str) -> str:
    """Card, driver and versions, in a paragraph."""
    facts = [f"Python {platform.python_version()}", f"PyTorch {torch.__version__}"]
    if device == "cuda":
        facts = [_card(), *facts, f"CUDA {torch.version.cuda}", f"cuDNN {torch.backends.cudnn.version()}"]
    return f"{', '.join(facts)}, {usable_processors()} processor cores, {platform.system()}."


def _card() -> str:
    """Name, memory and driver; not asked of PyTorch, which would set up the device in this process for it."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        asked = subprocess.run(query, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=True)
        name, memory, driver = asked.stdout.partition("\n")[0].split(", ")
        return f"{name}, {memory}, driver {driver}"
    return torch.cuda.get_device_name(0)


def call(*command: str, end: float) -> str:
    """Run Python with these arguments; what it said.

    Raises:
        PartError: it failed, with the last line of what it said, or there was no time for it.
    """
    left = end - time.monotonic()
    if left < 1:
        raise PartError("no time was left")
    try:
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, encoding="utf-8", errors="replace", timeout=left
        )
    except subprocess.TimeoutExpired:
        raise PartError(f"not ready after {left:.0f} s") from None
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        raise PartError(said[-1] if said else f"status {done.returncode}", "\n".join(said))
    return done.stdout


def run_tests(settings: Settings, end: float) -> str:
    """The unit tests that take a device."""
    # Other versions warn of other things.
    options = ["--device", settings.device, "-q", "-p", "no:cacheprovider", "-W", "default", "--durations=0"]
    try:
        said = call("-m", "pytest", "tests/unit/test_device.py", *options, end=end)
    except PartError as error:
        faults = [f"- {line}" for line in error.text.splitlines() if line.startswith(("FAILED", "ERROR"))]
        raise PartError(str(error), "\n".join(faults)) from None
    return f"`tests/unit/test_device.py`: {said.strip().splitlines()[-1].strip('= ')}."


def train_models(settings: Settings, end: float) -> str:
    """Each model by its recipe through the stages, against its committed figures."""
    header = (
        "Model", "Validation, %", "… by the processor", "Difference", "Training split, %", "… by the processor",
        "Difference", "Training, s", "Measuring, s",
    )  # fmt: skip
    rows, failed = [], []
    for model in settings.loaded().models:
        try:
            rows.append(train_model(settings, model, end))
        except (PartError, OSError, KeyError, ValueError) as error:
            failed.append(model)
            rows.append([model, f"failed: {error}", *[""] * (len(header) - 2)])
    note = "Seconds are of whole processes. The processor's figures are those committed, of the same seed."
    text = f"{table(header, rows)}\n\n{note}"
    if failed:
        raise PartError(f"{', '.join(failed)}: see the table", text)
    return text


def train_model(settings: Settings, model: str, end: float) -> list[str]:
    """A model's row of the table. The commands are those of dvc.yaml, with other places for what they make."""
    made = settings.scratch / model
    shared = ["--params", str(settings.params), "--model", model, "--weights", str(made / "weights.safetensors")]
    began = time.monotonic()
    call(
        "-m", "stages.train", *shared, "--splits", str(settings.splits), "--history", str(made / "history.csv"),
        end=end,
    )  # fmt: skip
    trained = time.monotonic()
    call(
        "-m", "stages.evaluate", *shared, "--splits", str(settings.splits), "--metrics", str(made / "metrics.json"),
        "--confusion", str(made / "confusion.csv"), "--recalls", str(made / "recalls.csv"),
        "--record", str(made / "record.json"), end=end,
    )  # fmt: skip
    measured = time.monotonic()
    mine, theirs = (
        json.loads(file.read_text(encoding="utf-8"))
        for file in (made / "metrics.json", settings.committed / f"{model}.json")
    )
    cells = [model]
    for key in ("val_accuracy", "train_accuracy"):
        cells += [f"{mine[key]:.2f}", f"{theirs[key]:.2f}", f"{mine[key] - theirs[key]:+.2f}"]
    return [*cells, f"{trained - began:.1f}", f"{measured - trained:.1f}"]


def reach_target(settings: Settings, end: float) -> str:
    """Seconds to the target and in all, in a fresh process and again in the same one."""
    runs = work(settings, end, task="twice", model=TARGET_MODEL, weights=str(settings.scratch / "target"))
    target = settings.loaded().targets.test_accuracy
    header = (TARGET_MODEL, f"To {target} %", "Epoch", "All epochs", "Before the first", "An epoch, median")
    rows = []
    for name, label in (("cold", "fresh process"), ("warm", "again in it")):
        run = runs[name]
        began = runs["spawned"] if name == "cold" else run["started"]
        way = way_to_target(run | {"spawned": began}, run["test_accuracies"], target)
        reached = (f"{way['seconds']:.1f} s", str(way["epoch"])) if way["reached"] else ("not reached", "–")
        moments = [run["began"], *run["ends"]]
        epochs = [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]
        times = (f"{moments[-1] - began:.1f} s", f"{moments[0] - began:.1f} s", f"{median(epochs):.2f} s")
        rows.append([label, *reached, *times])
    accuracies = ", ".join(f"{accuracy:.2f}" for accuracy in runs["cold"]["test_accuracies"])
    said = f"Measured afterwards, from the weights saved at each epoch's end: {accuracies} % in the fresh process."
    same = runs["cold"]["test_accuracies"] == runs["warm"]["test_accuracies"]
    return f"{table(header, rows)}\n\n{said} The second run gave {'the same' if same else '**others**'}."


def profile_steps(settings: Settings, end: float) -> str:
    """What limits a step, as it is and with its operations launched one by one."""
    ways = {"as it is": True, "one by one": False} if settings.device == "cuda" else {"as it is": True}
    found = {name: work(settings, end, task="profiled", model=TARGET_MODEL, capture=way) for name, way in ways.items()}
    rows = {
        "A step": "ms",
        "The device computes": "busy_ms",
        "… copying to and from it": "copies_ms",
        "… changing images at random": "augmentation_ms",
        "The processor launches": "launching_ms",
        "… and waits": "waiting_ms",
        "… and draws the changes": "drawing_ms",
    }
    lines = [[title, *(_milliseconds(figures[key]) for figures in found.values())] for title, key in rows.items()]
    text = table([f"{TARGET_MODEL}, ms a step", *found], lines)
    return "\n".join([text, "", *(line for name, figures in found.items() for line in verdict(name, figures))])


def verdict(name: str, figures: dict[str, Any]) -> list[str]:
    """What limits a step, and what the device does most of the time."""
    heaviest = "; ".join(f"{_short(kernel)} {_milliseconds(ms)}" for kernel, ms in figures["heaviest"])
    text = f"- {name}, {figures['steps']} steps: "
    if figures["busy_ms"] is not None:
        busy = figures["busy_ms"] / figures["ms"]
        limit = "its own work is the limit" if busy > 0.5 else "launching and waiting are the limit"
        text += (
            f"the device is busy {busy:.0%} of the time, so {limit}; {figures['operations']:.0f} operations and "
            f"{figures['launches']:.0f} launches a step. "
        )
    return [f"{text}Most time takes: {heaviest}."]


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _short(kernel: str) -> str:
    """A kernel's name without what C++ adds to it, which would be a line and more."""
    plain = re.sub(r"<.*|\(.*", "", kernel.replace("void ", "").replace("(anonymous namespace)", ""))
    return f"`{plain.rpartition('::')[2] or plain or kernel[:40]}`"


def work(settings: Settings, end: float, **options: object) -> dict[str, Any]:
    """What ``worker`` finds by a task, in the time that is left."""
    left = max(1.0, end - time.monotonic())
    return run_worker(options | {"params": str(settings.params), "splits": str(settings.splits)}, timeout=left)


PARTS = (
    Part("Tests", run_tests, 0.2),
    Part("The models by their recipes", train_models, 0.7),
    Part("The way to the target", reach_target, 0.87),
    Part("What limits a step", profile_steps, 1.0),
)

if __name__ == "__main__":
    cli.run(main)
