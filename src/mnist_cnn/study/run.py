"""The study's trials run in parallel, with a forecast of the time left."""

import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, redirect_stderr
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn
from torchinfo import summary
from tqdm import tqdm

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.common.processors import usable_processors
from mnist_cnn.common.sealed import read_sealed
from mnist_cnn.data.images import STATISTICS, load_splits
from mnist_cnn.engine.device import prepare
from mnist_cnn.engine.predictor import TTA_VIEWS
from mnist_cnn.models import build
from mnist_cnn.settings.params import Train
from mnist_cnn.study.parallel import Done, Failed, run_parallel
from mnist_cnn.study.plan import Trial
from mnist_cnn.study.records import Record, data_digest, fingerprint
from mnist_cnn.study.trial import measure, splits_of

# What each trial loads: by PyTorch's optimizers, and to compute deterministically.
_PRELOADED = ("torch", "torch._dynamo", "torch._inductor.config")
_BAR = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}"


def run_trials(
    trials: Mapping[str, Trial], data: str, splits: Path, computing: Path, shared: Train, jobs: int
) -> Generator[tuple[str, Done | Failed], None, None]:
    """The trials' results as they come, with a bar on a terminal and a line each, and a forecast of the time left.

    Args:
        data: a name for the images and the libraries' versions, by ``data_digest``.
        splits: the folder that the stage ``split`` wrote.
        computing: the versions.
        jobs: how many trials run at a time.
    """
    threads = max(1, usable_processors() // jobs)
    tasks = [(trial, data, splits, computing, shared, threads) for trial in trials.values()]
    names = list(trials)
    images = read_sealed(splits / STATISTICS, "'dvc repro split'")["images"]
    # In multiplications: an epoch of one model takes as long as four of another.
    an_epoch = {name: _epoch_cost(trial, images) for name, trial in trials.items()}
    left = {name: an_epoch[name] * trial.recipe.epochs for name, trial in trials.items()}
    whole, started = sum(left.values()), time.monotonic()
    with (
        tqdm(total=whole, disable=None, smoothing=0, bar_format=_BAR) as bar,
        closing(run_parallel(run_trial, tasks, jobs, preload=_PRELOADED)) as running,
    ):
        for place, message in running:
            name = names[place]
            if not isinstance(message, Done | Failed):
                left[name] -= an_epoch[name]
                bar.update(an_epoch[name])
                continue
            if isinstance(message, Failed):
                whole -= left[name]
                bar.total = whole
            del left[name]
            yield name, message
            what = f"validation {message.result['val_accuracy']:.2f} %" if isinstance(message, Done) else "failed"
            to_do = sum(left.values())
            seconds = (time.monotonic() - started) * to_do / max(1, whole - to_do)
            bar.set_postfix_str(f"{len(left)} of {len(trials)} trials left", refresh=False)
            bar.write(f"[INFO] {name}: {what}; {len(left)} left, about {timedelta(seconds=round(seconds))}")
            sys.stdout.flush()


def run_trial(
    trial: Trial, data: str, splits: Path, computing: Path, shared: Train, threads: int, say: Callable[[int], object]
) -> Record:
    """One trial, in a process of its own, with the fingerprint of the code that the process has imported.

    Raises:
        InputError: the code was changed meanwhile, or images or versions are not those of the name ``data``.
    """
    _check_data(data, splits, computing)
    execution = prepare(shared)
    own = fingerprint(trial, data, execution)
    execution = execution._replace(threads=threads)
    images = load_splits(splits, splits_of(trial), trial.recipe.deskew)
    # A bar an epoch, from several processes, would be in the way of the one over all. A lock between the processes is
    # not needed then, and one that is killed would leave it behind.
    tqdm.set_lock(threading.RLock())
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        measured = measure(trial, images, execution, say, own)
    if fingerprint(trial, data, execution) != own:
        raise InputError("the code was changed while it ran")
    _check_data(data, splits, computing)
    return {"fingerprint": own, **measured}


def _check_data(name: str, splits: Path, computing: Path) -> None:
    if data_digest(splits, computing) != name:
        raise InputError(f"{splits} or {computing}: changed while the study ran")


def _epoch_cost(trial: Trial, images: Mapping[str, int]) -> int:
    """Multiplications of an epoch: forward and backward pass in training, forward passes to validate and to test."""
    network = build(trial.model, trial.recipe.dropout, trial.widths)
    tested = 2 * images["test"] if trial.tested else 0
    views = len(TTA_VIEWS) if trial.recipe.tta else 1
    # The backward pass takes two forward passes.
    return multiplications(network) * (3 * images["train"] + views * (images["val"] + tested))


def multiplications(network: nn.Module) -> int:
    """How many an image takes, forward."""
    image = torch.zeros(1, 1, IMAGE_SIDE, IMAGE_SIDE)
    return int(summary(network, input_data=image, mode="eval", verbose=0).total_mult_adds)
