"""A mirror: a folder at an http, https or file address that has a data set's files, compressed or plain."""

import stat
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from gzip import BadGzipFile, GzipFile
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, InvalidURL
from io import BytesIO
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import IO
from urllib.error import HTTPError
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
    url2pathname,
)

from tqdm import tqdm

from mnist_cnn.prepare.pace import Pace
from mnist_cnn.prepare.raw import RAW_FILES, RawFile
from mnist_cnn.prepare.sources import NotThereError, Source, SourceError, brief, shown

# For the connection and for each read.
TIMEOUT_S = 20.0

_CHUNK_BYTES = 1 << 16
_TICK_S = 0.1
# These tell of the server or the proxy as a whole. Other answers from 400 to 499 concern this one name: a store that
# does not say what it holds answers 403, for example.
_ABOUT_THE_SERVER = (407, 408, 425, 429)


def mirror_source(address: str, files: Mapping[str, RawFile] = RAW_FILES) -> Source:
    """The files of a data set below an address.

    A user and password in the address are used, and so is its query; neither is ever told.
    """
    return partial(_fetch, address, files)


def _fetch(address: str, files: Mapping[str, RawFile], name: str) -> bytes:
    """A file's bytes, from ``name.gz`` or, if that is not to be had, from ``name``. Raises SourceError."""
    folder, size = shown(address).rstrip("/"), files[name].size
    assert size is not None
    ways = [(name, size, _as_it_is)]
    if not name.endswith(".gz"):
        # What cannot be compressed grows a little, and the header has room for a name.
        ways.insert(0, (f"{name}.gz", size + size // 1000 + 1024, gunzip))
    faults = []
    for file, limit, unpack in ways:
        try:
            return unpack(read(address, file, limit), size)
        except NotThereError as error:
            faults.append(f"{folder}/{file}: {error}")
        except SourceError as error:
            raise SourceError(f"{folder}/{file}: {error}") from None
    raise SourceError("; ".join(faults))


def _as_it_is(content: bytes, size: int) -> bytes:
    return content


def gunzip(content: bytes, size: int) -> bytes:
    """What a gzip file unpacks to; stops behind ``size`` bytes, as a small file may unpack to very many.

    Raises:
        SourceError: it is damaged or unpacks to more. NotThereError: it is no gzip file at all.
    """
    if not content.startswith(b"\x1f\x8b"):
        raise NotThereError(f"not a gzip file ({len(content):,} bytes)")
    try:
        with GzipFile(fileobj=BytesIO(content)) as file:
            unpacked = file.read(size + 1)
    except (EOFError, zlib.error, BadGzipFile) as error:
        raise SourceError(f"truncated or altered ({brief(error)})") from None
    if len(unpacked) > size:
        raise SourceError(f"altered (unpacks to more than {size:,} bytes)")
    return unpacked


class _Body:
    """What has arrived of a file; one thread fills it, another one watches."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.content = bytearray()
        self.announced: int | None = None
        self.abandoned = False

    def fill(self, chunks: Iterable[bytes], announced: int | None) -> None:
        """Take chunks up to the limit. Raises SourceError."""
        self.announced = announced
        if announced is not None and announced > self.limit:
            raise SourceError(f"altered ({announced:,} bytes announced, should be {self.limit:,} at most)")
        for chunk in chunks:
            if self.abandoned:
                return
            self.content += chunk
            if len(self.content) > self.limit:
                raise SourceError(f"altered (more than {self.limit:,} bytes)")
        if announced is not None and len(self.content) < announced:
            raise SourceError(f"truncated ({len(self.content):,} of {announced:,} bytes)")


def read(address: str, file: str, limit: int) -> bytes:
    """The bytes of a file below an address, with a progress bar on a terminal.

    Raises:
        SourceError: it cannot be had, is truncated, has more than ``limit`` bytes or comes too slowly. NotThereError:
        the source does not hand it out.
    """
    parts = _parsed(address)
    receive = partial(_receive_file if parts.scheme == "file" else _receive_http, parts, file)
    body, pace, start = _Body(limit), Pace(), monotonic()
    # In a thread, as no time-out covers all of looking up a name, connecting and reading. One that is left behind
    # ends with its next chunk, or with the process.
    received = _in_background(receive, body)
    with tqdm(desc=file, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        try:
            while not received.done():
                wait([received], _TICK_S)
                bar.total = body.announced
                bar.update(len(body.content) - bar.n)
                if not received.done():
                    pace.check(len(body.content), monotonic() - start)
        finally:
            body.abandoned = True
    received.result()
    return bytes(body.content)


def _in_background(work: Callable[[_Body], None], body: _Body) -> "Future[None]":
    """What becomes of ``work`` in a thread that keeps no process alive."""
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            work(body)
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    Thread(target=run, daemon=True).start()
    return outcome


def _parsed(address: str) -> SplitResult:
    """An address in parts, its scheme in small letters. Raises SourceError. What is wrong in it may be a secret."""
    try:
        parts = urlsplit(address)
        valid = parts.scheme == "file" or (parts.hostname and parts.port != 0)
    except ValueError:
        valid = False
    if not valid or parts.scheme not in ("http", "https", "file"):
        raise SourceError("not a valid address; allowed are http://…, https://… and file:///…")
    return parts


def _path(parts: SplitResult, file: str) -> Path:
    if parts.netloc.lower() not in ("", "localhost"):
        raise SourceError("not on this machine; a file address has three slashes: file:///…")
    return Path(url2pathname(parts.path)) / file


def _receive_file(parts: SplitResult, file: str, body: _Body) -> None:
    path = _path(parts, file)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # to open a pipe would wait for ever
            raise NotThereError("not a file")
        with path.open("rb") as content:
            body.fill(iter(lambda: content.read(_CHUNK_BYTES), b""), found.st_size)
    except (OSError, ValueError) as error:
        raise NotThereError(brief(getattr(error, "strerror", None) or error)) from None


class _Redirects(HTTPRedirectHandler):
    """Follows redirects without reading the page that comes with one, which may be endless."""

    def http_error_302(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage) -> object:  # noqa: D102
        fp.close()
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener() -> OpenerDirector:
    """As urllib's own, with the user's proxies and certificates, but for http and https alone."""
    opener = OpenerDirector()
    for handler in (
        *(ProxyHandler(), HTTPHandler(), HTTPSHandler(), _Redirects()),
        *(HTTPDefaultErrorHandler(), HTTPErrorProcessor(), UnknownHandler()),
    ):
        opener.add_handler(handler)
    return opener


def _request(parts: SplitResult, file: str) -> Request:
    """The request for a file; the user and password go into a header that no redirect hands on."""
    path = quote(f"{parts.path.rstrip('/')}/{file}", safe="/%:@!$&'()*+,;=~")
    host = parts.netloc.rpartition("@")[2]
    request = Request(urlunsplit((parts.scheme, host, path, parts.query, "")))
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    return request


def _receive_http(parts: SplitResult, file: str, body: _Body) -> None:
    try:
        with _opener().open(_request(parts, file), timeout=TIMEOUT_S) as response:
            # Not read(), which waits until a chunk is full.
            body.fill(iter(lambda: response.read1(_CHUNK_BYTES), b""), response.length)
    except HTTPError as error:
        error.close()
        raise _refusal(error.code) from None
    except (InvalidURL, ValueError):  # their words repeat the address
        raise SourceError("it is not a valid address, or leads to one that is not") from None
    except (OSError, HTTPException) as error:
        raise SourceError(f"unreachable ({brief(getattr(error, 'reason', None) or error)})") from None


def _refusal(code: int) -> SourceError:
    """Of an answer that is no file. In our words, as the server's may be any."""
    phrase = HTTPStatus(code).phrase if code in set(HTTPStatus) else "not a known status"
    kind = NotThereError if 400 <= code < 500 and code not in _ABOUT_THE_SERVER else SourceError
    return kind(f"the server answered {code} ({phrase})")
