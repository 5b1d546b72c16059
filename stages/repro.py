"""The whole pipeline as ``dvc repro`` runs it, but with the models trained side by side."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from stages import cli


def main(jobs: int) -> None:
    """Reproduce what all models share, then train up to ``jobs`` models at a time, then do the rest.

    DVC decides what needs to run, and its lock file ends as after ``dvc repro``. A training run that fails is
    named and leaves the others alone.
    """
    if jobs < 1:
        sys.exit(f"error: jobs: {jobs} is not allowed: at least 1")
    if jobs > 1:
        _dvc("repro", "split")
        listed = subprocess.run(["dvc", "stage", "list", "--name-only"], check=True, capture_output=True, text=True)
        names = [name for name in listed.stdout.split() if name.startswith("train@")]
        with ThreadPoolExecutor(jobs) as pool:
            failed = [name for name, status in zip(names, pool.map(_train, names), strict=True) if status]
        if failed:
            sys.exit(f"error: failed: {', '.join(failed)}")
    _dvc("repro")


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
