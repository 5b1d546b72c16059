"""What a bare machine with a GPU lacks, in one folder: packages as wheels, and the divided data."""

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError

# Such a machine has PyTorch, numpy, pandas, safetensors, tqdm, pytest and hypothesis.
PACKAGES = (
    *("annotated-types", "pathspec", "psutil", "pydantic", "pydantic-core", "ruamel-yaml", "torchinfo"),
    *("typing-extensions", "typing-inspection"),
)
SPLITS = ("train.safetensors", "val.safetensors", "test.safetensors", "statistics.json")
# Its Python and its C library; 2014's is the oldest that today's wheels are made for.
TARGET = ("--python-version=3.12", "--implementation=cp", "--platform=manylinux2014_x86_64")
LIMIT = 64 << 20


def main(requirements: Path, splits: Path, folder: Path) -> None:
    """Put the packages and the data into a folder, which Git ignores from then on.

    Args:
        requirements: the exact versions.
        splits: the folder of the splits.
        folder: written: what the machine needs.

    Raises:
        InputError: the data is not there, a package has no version or cannot be had, or all is too large to travel.
    """
    missing = [name for name in SPLITS if not (splits / name).is_file()]
    if missing:
        raise InputError(f"{splits}: {', '.join(missing)} not there; 'dvc repro split' makes it")
    pins = pinned(requirements.read_text(encoding="utf-8"))
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    (folder / ".gitignore").write_text("*\n", encoding="utf-8", newline="\n")
    _download(pins, folder / "wheels")
    with tarfile.open(folder / "split.tar.gz", "w:gz", compresslevel=6) as archive:
        for name in SPLITS:
            archive.add(splits / name, f"split/{name}")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if size > LIMIT:
        raise InputError(f"{folder}: {size / 2**20:.0f} MiB are too much to travel; at most {LIMIT >> 20}")
    print(f"{folder}: {', '.join(pins)}, and the data; {size / 2**20:.1f} MiB")


def pinned(requirements: str) -> list[str]:
    """The packages with the versions that requirements.txt has for Python 3.12."""
    pins = []
    for name in PACKAGES:
        found = re.findall(rf"^({re.escape(name)}==\S+)(?: ; (.*))?$", requirements, re.MULTILINE)
        fitting = [pin for pin, marker in found if not marker or ">= '3.1" in marker]
        if len(fitting) != 1:
            raise InputError(f"requirements.txt: no single version of {name} for Python 3.12")
        pins += fitting
    return pins


def _download(pins: list[str], folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--only-binary=:all:", *TARGET, "--dest", str(folder), *pins], capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        raise InputError(f"pip: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")


if __name__ == "__main__":
    cli.run(main)
