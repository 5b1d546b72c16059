"""MNIST's four raw files: what is known of them, where they lie, and whether they are intact."""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import atomic_write
from mnist_cnn.common.mnist import IMAGE_SIDE


class RawFile(NamedTuple):
    """Size in bytes and MD5 of a file as it is uncompressed, header included."""

    size: int
    md5: str


# Source: "The MNIST database of handwritten digits", LeCun, Cortes, Burges, 1998; the sums are those of the files
# inside the archives that torchvision checks. A header has 16 bytes before images and 8 before labels.
RAW_FILES = {
    "train-images-idx3-ubyte": RawFile(size=47_040_016, md5="6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": RawFile(size=60_008, md5="a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": RawFile(size=7_840_016, md5="2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": RawFile(size=10_008, md5="27ae3e4e09519cfbb04c329615203637"),
}
_IMAGES_HEADER, _LABELS_HEADER = 16, 8


def raw_folder(raw: Path) -> Path:
    """Where the files lie below ``raw``: torchvision's layout."""
    return raw / "MNIST" / "raw"


def alteration(name: str, content: bytes) -> str | None:
    """In what ``content`` differs from the file of that name, in words, or None if it is the file."""
    known = RAW_FILES[name]
    if len(content) != known.size:
        return f"altered ({len(content):,} bytes, should be {known.size:,})"
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return None if digest == known.md5 else f"altered (MD5 {digest}, should be {known.md5})"


def is_intact(raw: Path, name: str) -> bool:
    """Whether the file is there, in folders that are no links, and has its known size and sum."""
    try:
        _read(raw, name)
    except InputError:
        return False
    return not any(folder.is_symlink() for folder in (raw_folder(raw), raw_folder(raw).parent))


def load_raw(raw: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a part, ``train`` or ``t10k``, from files that are checked before they are used.

    Returns:
        Pixels uint8 ``(N, 28, 28)``, 0 is background, and labels uint8 ``(N,)``.

    Raises:
        InputError: a file is missing or is not the known one; the message says how to get it back.
    """
    contents = []
    for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
        try:
            contents.append(_read(raw, name))
        except InputError as error:
            raise InputError(f"{error}: {_way_back(name)}") from None
    images, labels = (np.frombuffer(bytearray(content), np.uint8) for content in contents)
    return images[_IMAGES_HEADER:].reshape(-1, IMAGE_SIDE, IMAGE_SIDE), labels[_LABELS_HEADER:]


def _way_back(name: str) -> str:
    """Forced, as DVC goes by dates and may not have noticed; a damaged copy in its cache would come back."""
    digest = RAW_FILES[name].md5
    return (
        f"delete files/md5/{digest[:2]}/{digest[2:]} in DVC's cache (.dvc/cache, if it was not moved), should it be "
        "there, and run 'dvc repro --force download'"
    )


def _read(raw: Path, name: str) -> bytes:
    """A file's bytes, checked. Not opened if it has another size, as it may be endless. Raises InputError."""
    path, known = raw_folder(raw) / name, RAW_FILES[name]
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path}: not a file")
        if found.st_size != known.size:
            raise InputError(f"{path}: altered ({found.st_size:,} bytes, should be {known.size:,})")
        with path.open("rb") as file:
            content = file.read(known.size + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if fault := alteration(name, content):
        raise InputError(f"{path}: {fault}")
    return content


def store(raw: Path, name: str, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        InputError: it cannot be written: no space, no right to, something in the way.
    """
    path = raw_folder(raw) / name
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}): "
            f"{raw} must be a folder that you may write to, on a disk with {len(content):,} bytes of space"
        ) from None


def remove_leftovers(raw: Path) -> list[str]:
    """Remove all in ``raw`` but the four files and their folders: it would count into DVC's hash of the folder.

    Links are removed and never followed.

    Returns:
        What was removed, relative to ``raw``, folders with a slash at the end.

    Raises:
        InputError: something cannot be removed.
    """
    removed = []
    try:
        for path, is_folder in _leftovers(raw):
            removed.append(f"{path.relative_to(raw)}{os.sep if is_folder else ''}")
            if is_folder:
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        # As a literal: whoever made the file may have put control characters into its name.
        raise InputError(
            f"{str(error.filename or raw)!r} cannot be removed ({error.strerror}): in {raw} only MNIST's files may be"
        ) from None
    return removed


def _leftovers(raw: Path) -> Iterator[tuple[Path, bool]]:
    """What is neither one of the four files nor a folder of theirs, and whether it is a folder, which no link is."""
    folders = (raw, raw_folder(raw).parent, raw_folder(raw))
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            is_folder = path.is_dir() and not path.is_symlink()
            is_wanted = path in folders if is_folder else folder == folders[-1] and path.name in RAW_FILES
            if not is_wanted:
                yield path, is_folder
