"""One's own images: four files in MNIST's form, checked, and the same as when they were first used."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import write_text
from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.prepare.mirror import gunzip
from mnist_cnn.prepare.raw import (
    IMAGES_HEADER,
    LABELS_HEADER,
    NAMES,
    PARTS,
    RawFile,
    RawSet,
    check_place,
    md5,
    raw_folder,
    store,
    tidy,
)
from mnist_cnn.prepare.sources import SourceError

# Sums of the files, as ``md5sum`` writes and checks them. DVC does not count it into the folder.
SUMS = "checksums.md5"
# Of a file, and of what it unpacks to: 1.3 million images.
_MOST_BYTES = 1 << 30
_TAKEN_BY = "'dvc repro --force download' takes them"
_IMAGES, _LABELS = 0x803, 0x801  # how the files begin: uint8, three axes or one


def take(folder: Path, raw: Path, classes: int, say: Callable[[str], object]) -> None:
    """Put the four files of ``folder``, plain or ``.gz``, into ``raw`` as they are, and remove all else there.

    Their sums are written into ``folder`` when they are first used. Later they must be the same.

    Args:
        classes: how many there are; labels are below.

    Raises:
        InputError: a file is missing, is not in MNIST's form, does not fit the others, or is another one than before.
    """
    check_place(raw)
    if folder.resolve().is_relative_to(raw.resolve()):
        raise InputError(f"{folder}: lies in {raw}, from which all else is removed; own images are kept elsewhere")
    files = {name: content for wanted in NAMES for name, content in [_read(folder, wanted)]}
    for part in PARTS:
        _check(folder, part, files, classes)
    sums = {name: md5(content) for name, content in files.items()}
    _check_sums(folder, sums, say)
    known = _raw_set({name: RawFile(None, found) for name, found in sums.items()})
    tidy(raw, known, say)
    for name, content in files.items():
        store(raw, name, content, known)
    store(raw, SUMS, _text(sums).encode(), known)
    say(f"Own images: four files, checked, from {folder} in {raw}")


def stored_set(raw: Path) -> RawSet:
    """What is known of the files that ``take`` has put into ``raw``. Raises InputError where that is not known."""
    sums = _parsed(raw_folder(raw, _raw_set({})) / SUMS, _TAKEN_BY)
    if sums is None:
        raise InputError(f"{raw}: has no own images; {_TAKEN_BY}")
    return _raw_set({name: RawFile(None, found) for name, found in sums.items()})


def _raw_set(files: dict[str, RawFile]) -> RawSet:
    return RawSet("your own images", "custom", files, also=SUMS)


def _read(folder: Path, name: str) -> tuple[str, bytes]:
    """A file as it is named and stored, plain or ``.gz``."""
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.exists()]
    if len(found) != 1:
        fault = "is there twice, plain and compressed; one of them is allowed" if found else "is missing"
        raise InputError(f"{folder / name}: {fault}; docs/data.md says what the folder has")
    try:
        if not found[0].is_file():  # to open a pipe would wait for ever
            raise InputError(f"{found[0]}: not a file")
        if found[0].stat().st_size > _MOST_BYTES:
            raise InputError(f"{found[0]}: {found[0].stat().st_size:,} bytes are not allowed: at most {_MOST_BYTES:,}")
        return found[0].name, found[0].read_bytes()
    except OSError as error:
        raise InputError(f"{found[0]}: cannot be read ({error.strerror})") from None


def _check(folder: Path, part: str, files: dict[str, bytes], classes: int) -> None:
    """Raises InputError where the images and labels of a part are not in MNIST's form, or do not fit each other."""
    images, labels = (_array(folder, name, files) for name in NAMES if name.startswith(part))
    if images.shape[1:] != (IMAGE_SIDE, IMAGE_SIDE):
        size = " x ".join(map(str, images.shape[1:]))
        raise InputError(f"{folder}: {part}: images of {size} are not allowed: {IMAGE_SIDE} x {IMAGE_SIDE} pixels")
    if not len(images) or len(images) != len(labels):
        raise InputError(
            f"{folder}: {part}: {len(images):,} images and {len(labels):,} labels; as many, and at least one"
        )
    if labels.max() >= classes:
        raise InputError(
            f"{folder}: {part}: label {labels.max()} is not allowed: 0 to {classes - 1}, as params.yaml names "
            f"{classes} in custom.classes"
        )


def _array(folder: Path, name: str, files: dict[str, bytes]) -> np.ndarray:
    """The values of a file in IDX format: images ``(N, rows, columns)`` or labels ``(N,)``, uint8."""
    stored, content = next((found, files[found]) for found in (name, f"{name}.gz") if found in files)
    path = folder / stored
    if stored.endswith(".gz"):
        try:
            content = gunzip(content, _MOST_BYTES)
        except SourceError as error:
            raise InputError(f"{path}: {error}") from None
    kind, header, axes = (_IMAGES, IMAGES_HEADER, 3) if "images" in name else (_LABELS, LABELS_HEADER, 1)
    begins, *shape = struct.unpack(f">{axes + 1}I", content[:header].ljust(header, b"\0"))
    if len(content) < header or begins != kind:
        raise InputError(f"{path}: is no file of {'images' if axes == 3 else 'labels'} in MNIST's format (IDX, uint8)")
    values = len(content) - header
    if values != np.prod(shape, dtype=object):
        raise InputError(f"{path}: has {values:,} bytes after its header, which says {' x '.join(map(str, shape))}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _check_sums(folder: Path, sums: dict[str, str], say: Callable[[str], object]) -> None:
    """Write the sums down when there are none. Raises InputError where files are others than those written down."""
    file = folder / SUMS
    written = _parsed(file, "delete it, and it is written anew")
    if written is None:
        try:
            write_text(file, _text(sums))
        except OSError as error:
            raise InputError(f"{file}: cannot be written ({error.strerror})") from None
        say(f"Sums of the files, which are used for the first time: {file}")
    elif written != sums:
        changed = [name for name in {**sums, **written} if sums.get(name) != written.get(name)]
        raise InputError(
            f"{folder}: {', '.join(changed)}: not the files whose sums are in {file}; delete it if the change is meant"
        )


def _text(sums: dict[str, str]) -> str:
    return "".join(f"{found}  {name}\n" for name, found in sums.items())


def _parsed(file: Path, way_out: str) -> dict[str, str] | None:
    """Sums by file; None where there is no such file. Raises InputError where it cannot be read."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        sums = {name: found for found, _, name in (line.partition("  ") for line in lines if line)}
        if sorted(name.removesuffix(".gz") for name in sums) != sorted(NAMES):
            raise ValueError("it should name the four files")
        return sums
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: is no list of sums ({' '.join(str(error).split())}); {way_out}") from None
