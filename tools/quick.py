"""The whole pipeline at a small scale, in a folder of its own: does everything work together?"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from dvc.utils.serialize import modify_yaml

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import cache_folder, write_text
from mnist_cnn.common.sealed import read_sealed
from mnist_cnn.data.images import STATISTICS
from mnist_cnn.prepare.raw import KNOWN, is_intact, raw_folder
from mnist_cnn.settings.datasets import DataName
from mnist_cnn.settings.params import Params, load
from tools.pipeline import pipelines
from tools.processes import started
from tools.repro import interrupted_by_signals

# Without Git, whose hints would be about a folder that goes; with a cache there, whatever the user's settings say.
_DVC_SETTINGS = "[core]\n    no_scm = true\n[cache]\n    dir = cache\n"


def main(
    params: Path,
    raw: Path,
    splits: Path,
    lock: Path,
    numbers: Path,
    pictures: Path,
    models: str,
    images: int,
    epochs: int,
    at_least: float,
    jobs: int,
    keep: int,
) -> None:
    """Run this folder's pipeline, as it is now, in another folder on few images for few epochs; print its table.

    This folder stays as it is. The other one has all that Git lists or would add, but nothing that stages make. Ends
    with status 1 where the pipeline fails, runs a stage twice, or trains a model that learns nothing.

    Args:
        params: the settings.
        raw: where the data set is, if it is here; otherwise it is fetched.
        splits: the folder of the splits and their statistics.
        lock: DVC's lock file.
        numbers: the table of the models that the pipeline writes.
        pictures: its folder of figures.
        models: names, with spaces between them; empty for the first and the last of the settings.
        images: how many to train on, at most.
        epochs: how many epochs to train, at most.
        at_least: the validation accuracy, in percent, that tells a model that learns MNIST. Of other images it has to
            be a point above the share of their most frequent class.
        jobs: how many models at a time.
        keep: 1 keeps the folder and says where it is, 0 removes it.
    """
    interrupted_by_signals()
    begun = time.monotonic()
    settings = load(params)
    chosen = chosen_models(models, settings)
    with scratch_folder(keep=bool(keep)) as scratch:
        copy_inputs(Path(), scratch)
        scale_down(scratch / params, chosen, images, epochs)
        environment = own_environment(scratch, raw, settings.data)
        _run(scratch, environment, sys.executable, "-m", "tools.repro", f"--jobs={jobs}", f"--lock={lock}")
        again = _run(scratch, environment, "dvc", "repro", stdout=subprocess.PIPE)
        if "Running stage" in again:
            raise InputError(f"dvc repro: runs stages again, though nothing has changed:\n{again}")
        show = (
            sys.executable,
            "-m",
            "tools.show",
            f"--params={params}",
            f"--numbers={numbers}",
            f"--pictures={pictures}",
        )
        # The rest says where tables and plots are.
        table = _run(scratch, environment, *show, stdout=subprocess.PIPE).partition("\n\n")[0]
        print(f"\n{heading(load(scratch / params), time.monotonic() - begun)}\n\n{table}\n", flush=True)
        check_learned(scratch / numbers, at_least if settings.data == "mnist" else most_frequent(scratch / splits) + 1)


@contextmanager
def scratch_folder(*, keep: bool) -> Iterator[Path]:
    """A new folder among the system's temporary ones, removed at the end, however that comes, unless it is kept."""
    folder = Path(tempfile.mkdtemp(prefix="mnist-quick-"))
    try:
        yield folder
    except KeyboardInterrupt:
        print("interrupted: the trial is given up", file=sys.stderr)
        raise
    finally:
        if keep:
            print(f"Kept: {folder}", flush=True)
        else:
            # An impatient second Ctrl-C would leave half of it.
            before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
            shutil.rmtree(folder)
            for number, handler in before.items():
                signal.signal(number, handler)


def copy_inputs(root: Path, folder: Path) -> None:
    """Copy a working tree as it is now, but for what stages make, with DVC settings that keep to the copy.

    Raises:
        InputError: DVC cannot read the pipelines, or the folder is not in Git.
    """
    found = pipelines(root)
    made = found.outs | found.stages.keys()
    copy_repository(root, folder, lambda name: made.isdisjoint([Path(name), *Path(name).parents]))
    for path in found.added:  # Git does not list what 'dvc add' keeps
        if (root / path).is_dir():
            shutil.copytree(root / path, folder / path)
        elif (root / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / path, folder / path)
    write_text(folder / ".dvc/config.local", _DVC_SETTINGS)


def copy_repository(root: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Copy the files that Git lists or would add, as they are now, of those names that are wanted.

    Raises:
        InputError: ``root`` is not in Git.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8")
    if listed.returncode:
        raise InputError(f"{root.resolve()}: is not in Git, which lists what to copy; 'git init' puts it there")
    for name in filter(None, listed.stdout.split("\0")):
        if (root / name).is_file() and wanted(name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name)


def chosen_models(models: str, settings: Params) -> list[str]:
    """The named models; by default the first and the last, of which one is plain and the other has all there is.

    A new model is the last. Raises InputError where a name is unknown.
    """
    for name in models.split():
        settings.recipe(name)
    return list(dict.fromkeys(models.split() or [next(iter(settings.models)), next(reversed(settings.models))]))


def scale_down(params: Path, models: list[str], images: int, epochs: int) -> None:
    """Have the settings in a file train these models alone, on so many images for so many epochs, at most."""
    with modify_yaml(str(params)) as settings:
        split = settings["split"][settings["data"]]
        split["train"] = min(split["train"], images)
        settings["models"] = {name: settings["models"][name] for name in models}
        if settings["model"] not in models:
            settings["model"] = models[-1]
        for recipe in settings["models"].values():
            recipe["epochs"] = min(recipe["epochs"], epochs)


def heading(settings: Params, seconds: float) -> str:
    """What the table is of, so that nobody takes it for results."""
    models, epochs = ", ".join(settings.models), max(recipe.epochs for recipe in settings.models.values())
    scale = f"{settings.split.train:,} images, {epochs} epoch{'s' * (epochs > 1)}, {seconds:.0f} seconds"
    return f"TRIAL: {models}; {scale}. All stages work together; these figures mean nothing."


def own_environment(scratch: Path, raw: Path, data: DataName) -> dict[str, str]:
    """The environment of a run that leaves nothing outside its folder, and finds what is here.

    The data set is taken from ``raw``, if its files are whole, and the compiled kernels from this environment.
    """
    temporary = scratch / ".dvc/tmp"
    cache = temporary / "mnist_cnn"
    cache.mkdir(parents=True)
    for library in cache_folder().glob("kernels-*"):
        shutil.copy(library, cache)
    known, mirror = KNOWN.get(data), {}
    if known and all(is_intact(raw, name, known) for name in known.files):
        mirror = {"MNIST_MIRROR": raw_folder(raw, known).resolve().as_uri()}
    own = {"TMPDIR": temporary, "MNIST_CNN_CACHE": cache, "DVC_SITE_CACHE_DIR": temporary / "site"}
    return mirror | os.environ | {name: str(folder) for name, folder in own.items()}


def most_frequent(splits: Path) -> float:
    """The share of the most frequent class among validation images, in percent."""
    counts = read_sealed(splits / STATISTICS, "'dvc repro split'")["images_per_class"]["val"]
    return float(100 * max(counts) / sum(counts))


def check_learned(numbers: Path, at_least: float) -> None:
    """Raises InputError, a line a model, where validation accuracies in a table are below ``at_least``."""
    table = pd.read_csv(numbers)
    poor = table[~(table["val_accuracy"] >= at_least)]
    lines = [
        f"{name}: learned nothing: {found} % on validation, expected at least {at_least:.4g} %"
        for name, found in zip(poor["model"], poor["val_accuracy"], strict=True)
    ]
    if lines:
        raise InputError("\n".join(lines))


def _run(folder: Path, environment: dict[str, str], *command: str, stdout: int | None = None) -> str:
    """Run a command in a folder; what it prints, where that goes into a pipe. Raises InputError where it fails."""
    with started(command, cwd=folder, env=environment, stdout=stdout) as process:
        output, _ = process.communicate()
    if process.returncode:
        print(output or "", end="")
        raise InputError("the trial has failed, see above; 'make quick KEEP=1' keeps its folder")
    return output or ""


if __name__ == "__main__":
    cli.run(main)
