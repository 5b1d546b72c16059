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
from mnist_cnn.prepare.raw import RAW_FILES, is_intact, raw_folder
from mnist_cnn.settings.params import Params, load
from tools.pipeline import pipelines
from tools.processes import started
from tools.repro import interrupted_by_signals

# Without Git, whose hints would be about a folder that goes; with a cache there, whatever the user's settings say.
_DVC_SETTINGS = "[core]\n    no_scm = true\n[cache]\n    dir = cache\n"


def main(
    params: Path,
    raw: Path,
    lock: Path,
    numbers: Path,
    pictures: Path,
    images: int,
    epochs: int,
    at_least: float,
    jobs: int,
    keep: int,
) -> None:
    """Run this folder's pipeline, as it is now, on few images for few epochs in another folder; print its table.

    This folder stays as it is. The other one has all that Git lists or would add, but nothing that stages make. Ends
    with status 1 where the pipeline fails, runs a stage twice, or trains a model that learns nothing.

    Args:
        params: the settings.
        raw: where MNIST is, if it is here; otherwise it is fetched.
        lock: DVC's lock file.
        numbers: the table of the models that the pipeline writes.
        pictures: its folder of figures.
        images: how many to train on, at most.
        epochs: how many epochs to train, at most.
        at_least: the validation accuracy, in percent, that tells a model that learns.
        jobs: how many models at a time.
        keep: 1 keeps the folder and says where it is, 0 removes it.
    """
    interrupted_by_signals()
    begun = time.monotonic()
    load(params)  # what is wrong there is told at once
    with scratch_folder(keep=bool(keep)) as scratch:
        copy_inputs(Path(), scratch)
        scale_down(scratch / params, images, epochs)
        environment = own_environment(scratch, raw)
        _run(scratch, environment, sys.executable, "-m", "tools.repro", f"--jobs={jobs}", f"--lock={lock}")
        again = _run(scratch, environment, "dvc", "repro", stdout=subprocess.PIPE)
        if "Running stage" in again:
            raise InputError(f"dvc repro: runs stages again, though nothing has changed:\n{again}")
        show = (sys.executable, "-m", "tools.show", f"--numbers={numbers}", f"--pictures={pictures}")
        # The rest says where tables and plots are.
        table = _run(scratch, environment, *show, stdout=subprocess.PIPE).partition("\n\n")[0]
        print(f"\n{heading(load(scratch / params), time.monotonic() - begun)}\n\n{table}\n", flush=True)
        check_learned(scratch / numbers, at_least)


@contextmanager
def scratch_folder(*, keep: bool) -> Iterator[Path]:
    """A new folder among the system's temporary ones, removed at the end, however that comes, unless it is kept."""
    folder = Path(tempfile.mkdtemp(prefix="mnist-quick-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"Kept: {folder}", flush=True)
        else:
            # An impatient second Ctrl-C would leave half of it.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            shutil.rmtree(folder)
            signal.signal(signal.SIGINT, before)


def copy_inputs(root: Path, folder: Path) -> None:
    """Copy a working tree as it is now, but for what stages make, with DVC settings that keep to the copy.

    Raises:
        InputError: DVC cannot read the pipelines, or the folder is not in Git.
    """
    found = pipelines(root)
    made = found.outs | found.stages.keys()
    copy_repository(root, folder, lambda name: made.isdisjoint([Path(name), *Path(name).parents]))
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


def scale_down(params: Path, images: int, epochs: int) -> None:
    """Have the settings in a file train on no more than so many images, and for no more than so many epochs."""
    with modify_yaml(str(params)) as settings:
        settings["split"]["train"] = min(settings["split"]["train"], images)
        for recipe in settings["models"].values():
            recipe["epochs"] = min(recipe["epochs"], epochs)


def heading(settings: Params, seconds: float) -> str:
    """What the table is of, so that nobody takes it for results."""
    epochs = max(recipe.epochs for recipe in settings.models.values())
    return (
        f"TRIAL: {settings.split.train:,} images, {epochs} epoch{'s' * (epochs > 1)}, {seconds:.0f} seconds. "
        "All stages work together; these figures mean nothing."
    )


def own_environment(scratch: Path, raw: Path) -> dict[str, str]:
    """The environment of a run that leaves nothing outside its folder, and finds what is here.

    MNIST is taken from ``raw``, if its files are whole, and the compiled kernels from this environment.
    """
    cache, sites = scratch / ".dvc/tmp/mnist_cnn", scratch / ".dvc/tmp/site"
    cache.mkdir(parents=True)
    for library in cache_folder().glob("kernels-*"):
        shutil.copy(library, cache)
    mirror = {"MNIST_MIRROR": raw_folder(raw).resolve().as_uri()} if all(is_intact(raw, n) for n in RAW_FILES) else {}
    return mirror | os.environ | {"MNIST_CNN_CACHE": str(cache), "DVC_SITE_CACHE_DIR": str(sites)}


def check_learned(numbers: Path, at_least: float) -> None:
    """Raises InputError, a line a model, where validation accuracies in a table of models are below ``at_least``."""
    table = pd.read_csv(numbers)
    poor = table[~(table["val_accuracy"] >= at_least)]
    lines = [
        f"{name}: learned nothing: {found} % on validation, expected at least {at_least} %"
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
