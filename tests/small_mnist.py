"""MNIST of a few digits as its four raw files, and servers that hand them out, well or badly."""

import gzip
import hashlib
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

from mnist_cnn.prepare.raw import RAW_FILES, RawFile
from tests.helpers import idx, serving, squares

DIGITS = {
    name: (images.pixels.numpy(), images.labels.numpy().astype(np.uint8))
    for name, images in (("train", squares(6, seed=0)), ("t10k", squares(3, seed=1)))
}
FILES = {
    f"{name}-{kind}-ubyte": idx(array)
    for name, arrays in DIGITS.items()
    for kind, array in zip(("images-idx3", "labels-idx1"), arrays, strict=True)
}
NAMES = list(FILES)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def make_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test, these are the known files."""
    for name, content in FILES.items():
        monkeypatch.setitem(RAW_FILES, name, RawFile(len(content), md5(content)))


class Answer(NamedTuple):
    """What a server says: status 0 is to hang up; ``announced`` is the Content-Length, by default the body's if known.

    A body may be in pieces, without end; ``raw`` replaces all, status line and headers too.
    """

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    announced: int | str | None = None
    reason: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    raw: bytes | Iterable[bytes] | None = None


class Mirror(NamedTuple):
    address: str
    asked: list[str]
    logins: list[str | None]


Serve = Callable[[dict[str, Answer]], Mirror]


@contextmanager
def servers() -> Iterator[Serve]:
    """Starts a server for a folder; what is not in it is a 404."""
    with ExitStack() as stack:

        def start(answers: dict[str, Answer]) -> Mirror:
            asked: list[str] = []
            logins: list[str | None] = []

            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    name = self.path.removeprefix("/mnist/")
                    asked.append(name)
                    logins.append(self.headers["Authorization"])
                    # A client may leave before the end.
                    with suppress(OSError):
                        self.give(answers.get(name, Answer(status=404)))

                def give(self, answer: Answer) -> None:
                    if answer.raw is None and answer.status:
                        self.send_response(answer.status, answer.reason)
                        length = answer.announced
                        if length is None and isinstance(answer.body, bytes):
                            length = len(answer.body)
                        for key, value in (*answer.headers, *(() if length is None else (("Content-Length", length),))):
                            self.send_header(key, str(value))
                        self.end_headers()
                    body = answer.body if answer.raw is None else answer.raw
                    for piece in [body] if isinstance(body, bytes) else body:
                        self.wfile.write(piece)

                def log_message(self, *_: object) -> None:
                    pass

            return Mirror(f"{stack.enter_context(serving(Handler))}/mnist/", asked, logins)

        yield start


def served(*names: str) -> dict[str, Answer]:
    return {f"{name}.gz": Answer(gzip.compress(FILES[name])) for name in names}


def stored(raw: Path) -> dict[str, bytes]:
    """Every file below the folder, temporary files too."""
    return {path.name: path.read_bytes() for path in raw.rglob("*") if path.is_file()}


def put(raw: Path, name: str, content: bytes) -> Path:
    path = raw / "MNIST" / "raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_all(raw: Path) -> None:
    for name, content in FILES.items():
        put(raw, name, content)


@contextmanager
def little_memory(most: int) -> Iterator[None]:
    """The block may allocate so many bytes at a time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def mutated(content: bytes) -> st.SearchStrategy[bytes]:
    """``content`` with up to three places replaced, maybe by something longer or shorter, or cut; or any bytes."""
    size = len(content)
    change = st.tuples(st.integers(0, size), st.integers(0, 20), st.binary(max_size=20))

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        result = content
        for place, length, new in changes:
            result = result[:place] + new + result[place + length :]
        return result

    cut = st.integers(0, size).map(lambda end: content[:end])
    return st.lists(change, max_size=3).map(apply) | cut | st.binary(max_size=200)
