"""Files that are either whole or not there."""

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it replaces ``path`` when the block ends without an error.

    An interrupted or failed block leaves ``path`` as it was and no temporary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8 with Unix line ends, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            whole.update(chunk)
    return whole.hexdigest()


def cache_folder() -> Path:
    """Where to keep what can be made again: in the environment, or where ``MNIST_CNN_CACHE`` says.

    Not in the working folder: DVC runs some experiments in a folder that it removes afterwards.
    """
    return Path(os.environ.get("MNIST_CNN_CACHE") or Path(sys.prefix) / "cache" / "mnist_cnn")
