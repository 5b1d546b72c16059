"""The whole pipeline as ``dvc repro`` runs it, but with several models trained at a time."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import write_text
from mnist_cnn.common.processors import usable_processors
from tools.lock import in_order, stages_of
from tools.pipeline import pipelines, strays
from tools.processes import interrupt, started
from tools.prune import prune

# What DVC says at each call, of which there are many here. It names 'dvc push' whether or not there is a remote.
_OF_EACH_CALL = re.compile(
    r"Stage '.+' didn't change, skipping|Data and pipelines are up to date\.|Use `dvc push` .*"
    r"|To track the changes with git, run:|\tgit add .*|To enable auto staging, run:|\tdvc config core\.autostage true"
)
_OF_A_STAGE = re.compile(r"Running stage '(.+)':|Stage '(.+)' is cached ")
_OF_A_FAILURE = re.compile(r"ERROR: failed to reproduce '(.+?)'")
# DVC, and Python in a stage, would keep lines back for a pipe.
_UNBUFFERED = {"PYTHONUNBUFFERED": "1"}


def main(jobs: int, lock: Path) -> None:
    """Reproduce what all models share, then train and measure up to ``jobs`` models at a time, then do the rest.

    What stages have left that are gone is removed. DVC decides what needs to run, and its lock file ends as after
    ``dvc repro``. A model that fails is named and leaves the others alone. Ctrl-C, or SIGTERM, ends all of it; ``dvc
    repro`` goes on from there.

    Args:
        jobs: how many models at a time; the results are the same.
        lock: DVC's lock file.
    """
    if jobs < 1:
        raise InputError(f"jobs: {jobs} is not allowed: at least 1")
    interrupted_by_signals()
    try:
        tell_of_absent(lock)
        # Whatever the settings refuse is refused here, before anything is removed.
        ran = _dvc("repro", "split")
        found = pipelines(Path())
        prune(found)
        refuse_strays(strays(found))
        if jobs > 1:
            ran += _run_stale_models(found.stages[lock], lock, jobs)
        ran += _dvc("repro")
    except KeyboardInterrupt:
        print("interrupted: 'dvc repro' goes on from here", file=sys.stderr)
        raise
    remotes = _remotes() if ran else []
    print(f"All is up to date{f'''; 'dvc push' sends what is new to {remotes[0]}''' if remotes else ''}")


def interrupted_by_signals() -> None:
    """Have SIGTERM, and a terminal that is closed, do what Ctrl-C does: raise KeyboardInterrupt."""
    # Of SIGINT too: a shell has its background jobs, and all that they start, ignore it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # nohup has it ignored.
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def refuse_strays(names: Sequence[Path]) -> None:
    """Raises InputError where there are files of no stage that another stage would take for results."""
    if names:
        listed = ", ".join(map(str, names[:5])) + (" and more" if names[5:] else "")
        raise InputError(
            f"{listed}: of no stage, and other stages would count it; 'dvc checkout' removes what another branch has "
            "left, and anything else is yours to move"
        )


def tell_of_absent(lock: Path) -> None:
    """Say what will become of outputs that are in DVC's lock file and not in this folder, as in a fresh clone."""
    missing = absent(lock) if lock.exists() else []
    if not missing:
        return
    remotes = _remotes()
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


def worth_telling(lines: Iterable[str]) -> Iterator[str]:
    """What DVC and its stages print, without what DVC says at each call; one empty line for several, none at an end."""
    told, gap = False, False
    for line in lines:
        if not line.strip():
            gap = told
        elif not _OF_EACH_CALL.fullmatch(line.rstrip("\n")):
            yield from ["\n"] if gap else []
            yield line
            told, gap = True, False


def _dvc(*arguments: str) -> list[str]:
    """Run DVC; the stages that ran or came from its cache. Ends this process where it fails."""
    with started(["dvc", *arguments], stdout=subprocess.PIPE, env=_UNBUFFERED | os.environ) as process:
        ran, _ = _show(process.stdout)
    if process.returncode:
        sys.exit(process.returncode)
    return ran


def _show(output: IO[str] | None, prefix: str = "") -> tuple[list[str], str | None]:
    """Print what is worth it as it comes; the stages that ran or came from the cache, and the one that failed."""
    assert output is not None
    ran, failed = [], None
    for line in worth_telling(output):
        print(f"{prefix}{line}", end="", flush=True)
        if found := _OF_A_STAGE.match(line):
            ran.append(found[1] or found[2])
        if found := _OF_A_FAILURE.match(line):
            failed = found[1]
    return ran, failed


def _remotes() -> list[str]:
    return [line.split()[0] for line in _output("remote", "list").splitlines()]


def _output(*arguments: str) -> str:
    """What DVC prints; ends this process where it fails."""
    ended = subprocess.run(["dvc", *arguments], stdout=subprocess.PIPE, encoding="utf-8")
    if ended.returncode:
        sys.exit(ended.returncode)
    return ended.stdout


def _run_stale_models(names: list[str], lock: Path, jobs: int) -> list[str]:
    """Run the stages of the models that are not up to date, and put the lock file into the pipeline's order.

    Args:
        names: all stages, in the pipeline's order; those of a model end with ``@`` and its name.

    Returns:
        The stages that ran or came from the cache.
    """
    of_models: dict[str, list[str]] = {}
    for name in names:
        if "@" in name:
            of_models.setdefault(name.partition("@")[2], []).append(name)
    # Its keys are the stages that are not up to date. What it misses, if anything, is left to the last call.
    stale = json.loads(_output("status", "--json")).keys()
    todo = {model: stages for model, stages in of_models.items() if not stale.isdisjoint(stages)}
    try:
        ran, failed = _run_models(todo, jobs)
    finally:
        write_text(lock, in_order(lock.read_text(encoding="utf-8"), names))
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")
    return ran


def _run_models(todo: dict[str, list[str]], jobs: int) -> tuple[list[str], list[str]]:
    """Run the stages of each model, ``jobs`` models at a time.

    Returns:
        The stages that ran or came from the cache, and those that failed.
    """
    # What the processor has is divided among the jobs; results do not depend on it.
    threads = max(1, usable_processors() // jobs)
    environment = _UNBUFFERED | {"OMP_NUM_THREADS": str(threads)} | os.environ
    running: dict[str, subprocess.Popen[str]] = {}

    def reproduce(model: str) -> tuple[list[str], str | None]:
        # Another model may hold DVC's lock for a moment; while a stage's command runs, none does.
        command = ["dvc", "--wait-for-lock", "repro", "--single-item", *todo[model]]
        with started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
            running[model] = process
            ran, failed = _show(process.stdout, f"{model} | ")
        return ran, failed or model if process.returncode else None

    with ThreadPoolExecutor(jobs) as pool:
        try:
            ended = list(pool.map(reproduce, todo))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running.values():
                interrupt(process)
            raise
    return [stage for ran, _ in ended for stage in ran], [failed for _, failed in ended if failed]


if __name__ == "__main__":
    cli.run(main)
