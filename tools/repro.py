"""The whole pipeline as ``dvc repro`` runs it, but with several models trained at a time."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import write_text
from mnist_cnn.common.processors import usable_processors
from tools.lock import in_order, stages_of
from tools.pipeline import pipelines
from tools.processes import interrupt, started
from tools.prune import prune


def main(jobs: int, lock: Path) -> None:
    """Reproduce what all models share, then train and measure up to ``jobs`` models at a time, then do the rest.

    What stages have left that are gone is removed. DVC decides what needs to run, and its lock file ends as after
    ``dvc repro``. A model that fails is named and leaves the others alone. Ctrl-C, or SIGTERM, ends all of it; ``dvc
    repro`` goes on from there.
    """
    if jobs < 1:
        sys.exit(f"error: jobs: {jobs} is not allowed: at least 1")
    # Of SIGINT too: a shell has its background jobs, and all that they start, ignore it.
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.default_int_handler)
    # The terminal was closed; nohup has it ignored.
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        tell_of_absent(lock)
        # Whatever the settings refuse is refused here, before anything is removed.
        _dvc("repro", "split")
        found = pipelines(Path())
        prune(found)
        if jobs > 1:
            names = found.stages[lock]
            # Its keys are the stages that are not up to date. What it misses, if anything, is left to the last call.
            stale = json.loads(_output("status", "--json"))
            models = [name.partition("@")[2] for name in names if name.startswith("train@")]
            try:
                failed = _run_models([m for m in models if {f"train@{m}", f"evaluate@{m}"} & stale.keys()], jobs)
            finally:
                write_text(lock, in_order(lock.read_text(encoding="utf-8"), names))
            if failed:
                sys.exit(f"error: failed: {', '.join(failed)}")
        _dvc("repro")
    except KeyboardInterrupt:
        print("interrupted: 'dvc repro' goes on from here", file=sys.stderr)
        raise


def tell_of_absent(lock: Path) -> None:
    """Say what will become of outputs that are in DVC's lock file and not in this folder, as in a fresh clone."""
    missing = absent(lock) if lock.exists() else []
    if not missing:
        return
    remotes = [line.split()[0] for line in _output("remote", "list").splitlines()]
    print(
        f"{lock} names {len(missing)} outputs that are not here, {missing[0]} first: they come from DVC's cache or are "
        "computed anew; "
        + (f"'dvc pull' fetches those that {remotes[0]} has" if remotes else "no remote is set to fetch them from"),
        flush=True,
    )


def absent(lock: Path) -> list[str]:
    """The paths of outputs that DVC's lock file names and this folder does not have; none where it cannot be read."""
    try:
        stages = stages_of(lock.read_text(encoding="utf-8"), lock).values()
    except (OSError, UnicodeDecodeError, InputError):
        return []  # DVC says what is wrong with it.
    return [out["path"] for stage in stages for out in stage.get("outs", []) if not Path(out["path"]).exists()]


def _dvc(*arguments: str) -> None:
    """Run DVC on this terminal; ends this process where it fails."""
    with started(["dvc", *arguments]) as process:
        process.wait()
    if process.returncode:
        sys.exit(process.returncode)


def _output(*arguments: str) -> str:
    """What DVC prints; ends this process where it fails."""
    ended = subprocess.run(["dvc", *arguments], stdout=subprocess.PIPE, encoding="utf-8")
    if ended.returncode:
        sys.exit(ended.returncode)
    return ended.stdout


def _run_models(models: list[str], jobs: int) -> list[str]:
    """Train and measure the models, ``jobs`` at a time; returns the stages that failed."""
    # What the processor has is divided among the jobs; results do not depend on it.
    threads = max(1, usable_processors() // jobs)
    environment = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"} | os.environ
    running: dict[str, subprocess.Popen[str]] = {}

    def reproduce(model: str) -> str | None:
        """The stage that failed, or none."""
        for stage in (f"train@{model}", f"evaluate@{model}"):
            # Another stage may hold DVC's lock for a moment; while its command runs, none does.
            command = ["dvc", "--wait-for-lock", "repro", "--single-item", stage]
            with started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
                running[model] = process
                assert process.stdout is not None
                for line in process.stdout:
                    print(f"{model} | {line}", end="", flush=True)
            if process.returncode:
                return stage
        return None

    with ThreadPoolExecutor(jobs) as pool:
        try:
            return [stage for stage in pool.map(reproduce, models) if stage]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running.values():
                interrupt(process)
            raise


if __name__ == "__main__":
    cli.run(main)
