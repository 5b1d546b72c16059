"""Train every model with many seeds, side by side."""

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm

from mnist_cnn import runtime
from mnist_cnn.data import load_images, load_normalisation
from mnist_cnn.describe import multiplications
from mnist_cnn.models import build
from mnist_cnn.parallel import Done, Failed, side_by_side
from mnist_cnn.params import Train, load, load_study
from mnist_cnn.study import Record, Trial, load_record, plan, remove_other_records, save_record
from mnist_cnn.trial import fingerprint, measure
from stages import cli


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
    data = [parts / f"{name}.safetensors" for name in ("train", "val", "test")] + [parts / "statistics.json"]
    compute = runtime.prepare(settings.train)
    prints = {name: fingerprint(trial, data, compute) for name, trial in trials.items()}
    todo = [name for name in trials if (load_record(records, name) or {}).get("fingerprint") != prints[name]]
    print(f"[INFO] {len(trials)} trials, {len(trials) - len(todo)} of them done; {jobs} at a time", flush=True)

    threads = max(1, (os.cpu_count() or 1) // jobs)
    failed = {}
    # Progress in multiplications, because an epoch of one model takes as long as four of another.
    cost = {name: multiplications(build(trials[name].model, widths=trials[name].widths)) for name in todo}
    whole = sum(cost[name] * trials[name].recipe.epochs for name in todo)
    started, computed, ended = time.monotonic(), 0, 0
    tasks = [(trials[name], parts, settings.train, threads) for name in todo]
    with tqdm(
        total=whole, disable=None, bar_format="{percentage:3.0f}%|{bar}| {elapsed} < {remaining}{postfix}"
    ) as bar:
        for place, told in side_by_side(train, tasks, jobs, preload=["mnist_cnn.trial"]):
            name = todo[place]
            if not isinstance(told, Done | Failed):
                computed += cost[name]
                bar.update(cost[name])
                continue
            ended += 1
            if isinstance(told, Done):
                save_record(records, name, {"fingerprint": prints[name], **told.result})
                outcome = f"validation {told.result['val_accuracy']:.2f} %"
            else:
                failed[name] = outcome = f"failed: {told.reason}"
            bar.set_postfix_str(f"{ended} of {len(todo)} trials", refresh=False)
            left = (time.monotonic() - started) * (whole - computed) / max(1, computed)
            bar.write(
                f"[INFO] {name}: {outcome}; {ended} of {len(todo)}, about {timedelta(seconds=round(left))} left",
                file=sys.stdout,
            )
            sys.stdout.flush()
    if failed:
        sys.exit("\n".join(f"error: {name} {reason}" for name, reason in failed.items()))
    remove_other_records(records, trials)


def train(trial: Trial, parts: Path, shared: Train, threads: int, say: Callable[[int], object]) -> Record:
    """One trial, in a process of its own."""
    compute = runtime.prepare(shared)._replace(threads=threads)
    names = ("train", "val", "test") if trial.tested else ("train", "val")
    images = {name: load_images(parts / f"{name}.safetensors") for name in names}
    # A bar an epoch, from several processes, would be in the way of the one over all.
    os.environ["TQDM_DISABLE"] = "1"
    return measure(trial, images, load_normalisation(parts / "statistics.json"), compute, say)


def _jobs(wanted: str) -> int:
    if not wanted:
        return os.cpu_count() or 1
    if not wanted.isdecimal() or not int(wanted):
        sys.exit(f"error: JOBS: {wanted!r} is not allowed: a whole number, at least 1")
    return int(wanted)


if __name__ == "__main__":
    cli.run(main)
