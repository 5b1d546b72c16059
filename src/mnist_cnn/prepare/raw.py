"""A data set's four raw files: what is known of them, where they lie, and whether they are intact."""

import gzip
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import atomic_write
from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.prepare.sources import printable


class RawFile(NamedTuple):
    """Size in bytes and MD5 of a file as it is stored; the size of a user's own file may be any, None."""

    size: int | None
    md5: str


class RawSet(NamedTuple):
    """The four files of a data set.

    Attributes:
        title: what messages call it.
        folder: where torchvision would look for it, below the folder of raw files.
        files: what is known of each file. Names are MNIST's, with ``.gz`` at the end where they are stored compressed.
        also: a file that may lie beside them.
    """

    title: str
    folder: str
    files: Mapping[str, RawFile]
    also: str = ""

    def stored(self, name: str) -> str:
        """The name of a file, given without ``.gz``, as it is stored."""
        return name if name in self.files else f"{name}.gz"


# The files by MNIST's names, for training and for testing.
PARTS = ("train", "t10k")
NAMES = tuple(f"{part}-{kind}-ubyte" for part in PARTS for kind in ("images-idx3", "labels-idx1"))
# Source: "The MNIST database of handwritten digits", LeCun, Cortes, Burges, 1998; the sums are those of the files
# inside the archives that torchvision checks. A header has 16 bytes before images and 8 before labels.
RAW_FILES = {
    "train-images-idx3-ubyte": RawFile(size=47_040_016, md5="6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": RawFile(size=60_008, md5="a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": RawFile(size=7_840_016, md5="2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": RawFile(size=10_008, md5="27ae3e4e09519cfbb04c329615203637"),
}
# Of these two the archives themselves are stored, as it is their sums that are published.
# Source: "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", Xiao, Rasul, Vollgraf,
# 2017, https://arxiv.org/abs/1708.07747
_FASHION_MNIST = {
    "train-images-idx3-ubyte.gz": RawFile(size=26_421_880, md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "train-labels-idx1-ubyte.gz": RawFile(size=29_515, md5="25c81989df183df01b3e8a0aad5dffbe"),
    "t10k-images-idx3-ubyte.gz": RawFile(size=4_422_102, md5="bef4ecab320f06d8554ea6380940ec79"),
    "t10k-labels-idx1-ubyte.gz": RawFile(size=5_148, md5="bb300cfdad3c16e7a12a480ee83cd310"),
}
# Source: "Deep Learning for Classical Japanese Literature", Clanuwat, Bober-Irizar, Kitamoto, Lamb, Yamamoto, Ha, 2018,
# https://arxiv.org/abs/1812.01718
_KMNIST = {
    "train-images-idx3-ubyte.gz": RawFile(size=18_165_135, md5="bdb82020997e1d708af4cf47b453dcf7"),
    "train-labels-idx1-ubyte.gz": RawFile(size=29_497, md5="e144d726b3acfaa3e44228e80efcd344"),
    "t10k-images-idx3-ubyte.gz": RawFile(size=3_041_136, md5="5c965bf0a639b31b8f53240b1b52f4d7"),
    "t10k-labels-idx1-ubyte.gz": RawFile(size=5_120, md5="7320c461ea6c1c855c0b718fb2a4b134"),
}
MNIST = RawSet("MNIST", "MNIST", RAW_FILES)
KNOWN = {
    "mnist": MNIST,
    "fashion_mnist": RawSet("Fashion-MNIST", "FashionMNIST", _FASHION_MNIST),
    "kmnist": RawSet("KMNIST", "KMNIST", _KMNIST),
}
IMAGES_HEADER, LABELS_HEADER = 16, 8


def raw_folder(raw: Path, known: RawSet = MNIST) -> Path:
    """Where the files lie below ``raw``: torchvision's layout."""
    return raw / known.folder / "raw"


def alteration(file: RawFile, content: bytes) -> str | None:
    """In what ``content`` differs from a file, in words, or None if it is the file."""
    if file.size is not None and len(content) != file.size:
        return f"altered ({len(content):,} bytes, should be {file.size:,})"
    digest = md5(content)
    return None if digest == file.md5 else f"altered (MD5 {digest}, should be {file.md5})"


def md5(content: bytes) -> str:
    """The MD5 sum, 32 hexadecimal digits."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def is_intact(raw: Path, name: str, known: RawSet = MNIST) -> bool:
    """Whether the file is there, in folders that are no links, and has its known size and sum."""
    try:
        _read(raw, name, known)
    except InputError:
        return False
    return not any(folder.is_symlink() for folder in (raw_folder(raw, known), raw_folder(raw, known).parent))


def load_raw(raw: Path, part: str, known: RawSet = MNIST) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a part, ``train`` or ``t10k``, from files that are checked before they are used.

    Returns:
        Pixels uint8 ``(N, 28, 28)``, 0 is background, and labels uint8 ``(N,)``.

    Raises:
        InputError: a file is missing or is not the known one; the message says how to get it back.
    """
    contents = []
    for name in (known.stored(f"{part}-images-idx3-ubyte"), known.stored(f"{part}-labels-idx1-ubyte")):
        try:
            content = _read(raw, name, known)
        except InputError as error:
            raise InputError(f"{error}: {_way_back(known.files[name])}") from None
        contents.append(gzip.decompress(content) if name.endswith(".gz") else content)
    images, labels = (np.frombuffer(bytearray(content), np.uint8) for content in contents)
    return images[IMAGES_HEADER:].reshape(-1, IMAGE_SIDE, IMAGE_SIDE), labels[LABELS_HEADER:]


def _way_back(file: RawFile) -> str:
    """Forced, as DVC goes by dates and may not have noticed; a damaged copy in its cache would come back."""
    return (
        f"delete files/md5/{file.md5[:2]}/{file.md5[2:]} in DVC's cache (.dvc/cache, if it was not moved), should it "
        "be there, and run 'dvc repro --force download'"
    )


def _read(raw: Path, name: str, known: RawSet) -> bytes:
    """A file's bytes, checked. Not opened if it has another size, as it may be endless. Raises InputError."""
    path, wanted = raw_folder(raw, known) / name, known.files[name]
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path}: not a file")
        if wanted.size is not None and found.st_size != wanted.size:
            raise InputError(f"{path}: altered ({found.st_size:,} bytes, should be {wanted.size:,})")
        with path.open("rb") as file:
            content = file.read(found.st_size + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if fault := alteration(wanted, content):
        raise InputError(f"{path}: {fault}")
    return content


def store(raw: Path, name: str, content: bytes, known: RawSet = MNIST) -> None:
    """Write a file, whole or not at all.

    Raises:
        InputError: it cannot be written: no space, no right to, something in the way.
    """
    path = raw_folder(raw, known) / name
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}): "
            f"{raw} must be a folder that you may write to, on a disk with {len(content):,} bytes of space"
        ) from None


def check_place(raw: Path) -> None:
    """Refuse a folder that holds the working directory: all that is foreign in ``raw`` is removed."""
    if Path.cwd().is_relative_to(os.path.realpath(raw)):
        raise InputError(f"{raw}: holds the working directory; allowed is a folder that is for the data set alone")


def tidy(raw: Path, known: RawSet, say: Callable[[str], object]) -> None:
    """Remove all in ``raw`` but the data set's files, and say so. Raises InputError where that cannot be done."""
    if removed := remove_leftovers(raw, known):
        names = ", ".join(removed[:5]) + (f" and {len(removed) - 5:,} more" if len(removed) > 5 else "")
        say(printable(f"Removed from {raw}, which is for the four files of {known.title} alone: {names}"))


def remove_leftovers(raw: Path, known: RawSet = MNIST) -> list[str]:
    """Remove all in ``raw`` but the four files and their folders: it would count into DVC's hash of the folder.

    Links are removed and never followed.

    Returns:
        What was removed, relative to ``raw``, folders with a slash at the end.

    Raises:
        InputError: something cannot be removed.
    """
    removed = []
    try:
        for path, is_folder in _leftovers(raw, known):
            removed.append(f"{path.relative_to(raw)}{os.sep if is_folder else ''}")
            if is_folder:
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        # As a literal: whoever made the file may have put control characters into its name.
        raise InputError(
            f"{str(error.filename or raw)!r} cannot be removed ({error.strerror}): in {raw} only the files of "
            f"{known.title} may be"
        ) from None
    return removed


def _leftovers(raw: Path, known: RawSet) -> Iterator[tuple[Path, bool]]:
    """What is neither one of the four files nor a folder of theirs, and whether it is a folder, which no link is."""
    folders = (raw, raw_folder(raw, known).parent, raw_folder(raw, known))
    names = {*known.files, known.also}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            is_folder = path.is_dir() and not path.is_symlink()
            is_wanted = path in folders if is_folder else folder == folders[-1] and path.name in names
            if not is_wanted:
                yield path, is_folder
