"""Whether files hold what their hashes say: DVC itself trusts its cache, and files whose times have not changed."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_DIR = ".dir"


def md5(file: Path) -> str:
    """The MD5 of a file's content, as DVC names it."""
    whole = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            whole.update(chunk)
    return whole.hexdigest()


def damaged_objects(cache: Path, names: Iterable[str] | None) -> list[Path]:
    """The objects in a cache that do not hold what their name is the hash of.

    Args:
        names: which to look at, with those that a folder's object lists; None is all. Those that are not here are not
            missed.
    """
    wanted = cache.glob("??/*") if names is None else map(cache.joinpath, map(_place, _with_members(cache, names)))
    return [path for path in wanted if path.is_file() and md5(path) != _name(path).removesuffix(_DIR)]


def _place(name: str) -> str:
    return f"{name[:2]}/{name[2:]}"


def _name(path: Path) -> str:
    return path.parent.name + path.name


def _with_members(cache: Path, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield name
        if name.endswith(_DIR):
            # Of a damaged list, the list is what is told.
            with suppress(OSError, ValueError, KeyError, TypeError):
                yield from [entry["md5"] for entry in json.loads((cache / _place(name)).read_bytes())]
