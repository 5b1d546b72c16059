"""Files that are either whole or not there."""

import hashlib
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it replaces ``path`` when the block ends without an error.

    An interrupted or failed block leaves ``path`` as it was and no temporary file.

    Raises:
        OSError: as the system does, of ``path``: a full disk names no file, and nobody knows the temporary one.
    """
    temporary = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        of_another = error.filename not in (None, str(temporary)) and error.filename2 is None
        if error.errno is None or of_another:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8 with Unix line ends, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Remove all files in ``folder`` but those of ``names``: they would count into DVC's hash of it."""
    for path in folder.glob("*"):
        if path.name not in names and not path.is_dir():
            path.unlink()


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
