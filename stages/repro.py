"""The whole pipeline as ``dvc repro`` runs it, but with the models trained side by side."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mnist_cnn.files import write_text
from stages import cli


def main(jobs: int, lock: Path) -> None:
    """Reproduce what all models share, then train up to ``jobs`` models at a time, then do the rest.

    DVC decides what needs to run, and its lock file ends as after ``dvc repro``. A training run that fails is
    named and leaves the others alone.
    """
    if jobs < 1:
        sys.exit(f"error: jobs: {jobs} is not allowed: at least 1")
    if jobs > 1:
        _dvc("repro", "split")
        listed = subprocess.run(["dvc", "stage", "list", "--name-only"], check=True, capture_output=True, text=True)
        names = listed.stdout.split()
        training = [name for name in names if name.startswith("train@")]
        with ThreadPoolExecutor(jobs) as pool:
            failed = [name for name, status in zip(training, pool.map(_train, training), strict=True) if status]
        write_text(lock, in_order(lock.read_text(encoding="utf-8"), names))
        if failed:
            sys.exit(f"error: failed: {', '.join(failed)}")
    _dvc("repro")


def in_order(lock: str, names: list[str]) -> str:
    """DVC's lock file with its stages in the order of ``names``, as if they had run one after the other.

    DVC adds each stage behind those that ended before it; the stages' text is not touched.
    """
    head, *blocks = re.split(r"^(?=  \S)", lock, flags=re.MULTILINE)
    by_name = {block.split(":")[0].strip(): block for block in blocks}
    order = [name for name in names if name in by_name]
    return head + "".join(by_name.pop(name) for name in order) + "".join(by_name.values())


def _dvc(*arguments: str) -> None:
    """Run DVC on this terminal; ends this process where it fails."""
    status = subprocess.run(["dvc", *arguments], check=False).returncode
    if status:
        sys.exit(status)


def _train(name: str) -> int:
    """Reproduce one stage alone, with its name before each line it prints; returns DVC's exit status."""
    # One process would wait for the lock while another holds it for a moment; training itself holds none.
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", name]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{name.removeprefix('train@')} | {line}", end="", flush=True)
    return process.returncode


if __name__ == "__main__":
    cli.run(main)
