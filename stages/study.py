"""Train every model with many seeds, side by side."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, redirect_stderr
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm

from mnist_cnn import runtime
from mnist_cnn.data import load_images, load_normalisation
from mnist_cnn.describe import multiplications
from mnist_cnn.models import build
from mnist_cnn.parallel import Done, Failed, side_by_side
from mnist_cnn.params import TEST_IMAGES, Split, Train, load, load_study
from mnist_cnn.study import Record, Trial, load_record, plan, remove_other_records, save_record
from mnist_cnn.trial import digest_of, fingerprint, measure
from stages import cli

_STATISTICS = "statistics.json"
_BAR = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}"


def main(params: Path, study: Path, parts: Path, records: Path) -> None:
    """Train every model with many seeds, side by side; go on where an earlier call stopped.

    As many at a time as there are processors, or as the environment's JOBS says. A trial that fails is named at the
    end and leaves the others alone.
    """
    # SIGTERM ends the processes that train, too; of SIGINT, which a shell has its background jobs ignore.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    settings = load(params)
    trials = plan(settings, load_study(study, settings))
    jobs = _jobs(os.environ.get("JOBS", ""))
    data = digest_of(
        [parts / name for name in ("train.safetensors", "val.safetensors", "test.safetensors", _STATISTICS)]
    )
    compute = runtime.prepare(settings.train)
    prints = {name: fingerprint(trial, data, compute) for name, trial in trials.items()}
    todo = {
        name: trial
        for name, trial in trials.items()
        if (load_record(records, name) or {}).get("fingerprint") != prints[name]
    }
    print(f"[INFO] {len(trials)} trials, {len(trials) - len(todo)} of them done; {jobs} at a time", flush=True)

    failed = {}
    try:
        with closing(_outcomes(todo, parts, settings.split, settings.train, jobs)) as outcomes:
            for name, outcome in outcomes:
                if fingerprint(trials[name], data, compute) != prints[name]:
                    failed[name] = "the code was changed while it ran"
                elif isinstance(outcome, Done):
                    save_record(records, name, {"fingerprint": prints[name], **outcome.result})
                else:
                    failed[name] = outcome.reason
    except KeyboardInterrupt:
        print("interrupted: 'make study' goes on from here", file=sys.stderr)
        raise
    if failed:
        sys.exit("\n".join(f"error: {name} failed: {reason}" for name, reason in failed.items()))
    remove_other_records(records, trials)


def _outcomes(
    trials: dict[str, Trial], parts: Path, split: Split, shared: Train, jobs: int
) -> Generator[tuple[str, Done | Failed], None, None]:
    """The trials' results as they come, with a bar on a terminal and a line each, and a forecast of the time left."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    tasks = [(trial, parts, shared, threads) for trial in trials.values()]
    names = list(trials)
    # In multiplications: an epoch of one model takes as long as four of another.
    an_epoch = {
        name: multiplications(build(trial.model, trial.recipe.dropout, trial.widths)) * _passes(trial, split)
        for name, trial in trials.items()
    }
    left = {name: an_epoch[name] * trial.recipe.epochs for name, trial in trials.items()}
    whole, started = sum(left.values()), time.monotonic()
    with (
        tqdm(total=whole, disable=None, smoothing=0, bar_format=_BAR) as bar,
        closing(side_by_side(train, tasks, jobs, preload=["torch"])) as running,
    ):
        for place, told in running:
            name = names[place]
            if not isinstance(told, Done | Failed):
                left[name] -= an_epoch[name]
                bar.update(an_epoch[name])
                continue
            if isinstance(told, Failed):
                whole -= left[name]
                bar.total = whole
            del left[name]
            yield name, told
            what = f"validation {told.result['val_accuracy']:.2f} %" if isinstance(told, Done) else "failed"
            to_do = sum(left.values())
            seconds = (time.monotonic() - started) * to_do / max(1, whole - to_do)
            bar.set_postfix_str(f"{len(left)} of {len(trials)} trials left", refresh=False)
            bar.write(f"[INFO] {name}: {what}; {len(left)} left, about {timedelta(seconds=round(seconds))}")
            sys.stdout.flush()


def _passes(trial: Trial, split: Split) -> int:
    """Passes of an image through the network in an epoch, the way back counted as two."""
    tested = 2 * TEST_IMAGES if trial.tested else 0
    return 3 * split.train + trial.recipe.views * (split.val + tested)


def train(trial: Trial, parts: Path, shared: Train, threads: int, say: Callable[[int], object]) -> Record:
    """One trial, in a process of its own."""
    compute = runtime.prepare(shared)._replace(threads=threads)
    names = ("train", "val", "test") if trial.tested else ("train", "val")
    images = {name: load_images(parts / f"{name}.safetensors") for name in names}
    normalisation = load_normalisation(parts / _STATISTICS)
    # A bar an epoch, from several processes, would be in the way of the one over all; nor is there need for the lock
    # between processes, which one that is ended would leave behind.
    tqdm.set_lock(threading.RLock())
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        return measure(trial, images, normalisation, compute, say)


def _jobs(wanted: str) -> int:
    if not wanted:
        return os.cpu_count() or 1
    if not wanted.isdecimal() or not int(wanted):
        sys.exit(f"error: JOBS: {wanted!r} is not allowed: a whole number, at least 1")
    return int(wanted)


if __name__ == "__main__":
    cli.run(main)
