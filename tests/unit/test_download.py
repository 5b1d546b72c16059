"""The four files from every kind of source and past every kind of fault, without a network."""

import gzip
import os
import resource
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import MNIST

from mnist_cnn.common.errors import InputError
from mnist_cnn.prepare import download as library
from mnist_cnn.prepare import mirror as mirrors
from mnist_cnn.prepare import pace
from mnist_cnn.prepare.download import download
from mnist_cnn.prepare.mirror import gunzip, mirror_source, read
from mnist_cnn.prepare.pace import PATIENCE_S, SLOWEST_BYTES_PER_S, Pace
from mnist_cnn.prepare.sources import Source, SourceError, brief, printable, shown
from tests.small_mnist import (
    DIGITS,
    FILES,
    NAMES,
    Answer,
    Serve,
    little_memory,
    make_known,
    md5,
    mutated,
    put,
    put_all,
    served,
    servers,
    stored,
)

# The file that goes wrong: there are some before it and some after it.
FAULTY = NAMES[1]
CONTENT, PACKED = FILES[FAULTY], gzip.compress(FILES[FAULTY])
FLIPPED = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
MEGABYTE = bytes(1 << 20)
# Ends after all, lest a test that fails takes all memory.
ENDLESS = [MEGABYTE] * 64
# Unpacks to a gigabyte, a member each megabyte.
BOMB = gzip.compress(MEGABYTE) * 1000
HEAD = b"HTTP/1.1 200 OK\r\n"
ESCAPE = "\x1b]0;title\x07\x1b[31m"


@pytest.fixture
def serve() -> Iterator[Serve]:
    with servers() as start:
        yield start


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small files are the known ones, torchvision has no mirrors, and there is no wheel."""

    def nothing(name: str) -> bytes:
        raise SourceError("no wheel")

    make_known(monkeypatch)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(MNIST, "mirrors", [])
    monkeypatch.setattr(library, "wheel_source", lambda: nothing)


def lines_of(raw: Path, mirror: str | None) -> list[str]:
    """What is told, of a failure too: each in a line that steers no terminal."""
    said: list[str] = []
    try:
        download(raw, mirror, said.append)
    except InputError as error:
        said.append(str(error))
    assert all(line.isprintable() for line in said)
    return said


# ---- where files come from


@pytest.mark.parametrize("compressed", [True, False])
def test_files_come_from_a_server(serve: Serve, tmp_path: Path, compressed: bool) -> None:
    plain = {name: Answer(content) for name, content in FILES.items()}
    mirror = serve(served(*NAMES) if compressed else plain)
    lines = lines_of(tmp_path, mirror.address)
    assert stored(tmp_path) == FILES
    assert len(lines) == 2 and mirror.address in lines[0]


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
    for scheme in ("file", "FILE"):
        raw = tmp_path / scheme
        download(raw, folder.as_uri().replace("file", scheme, 1) + end, say=print)
        assert stored(raw) == FILES


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
    started = [serve(served(*NAMES)) for _ in range(3)]
    first = 0 if named else 1
    monkeypatch.setattr(MNIST, "mirrors", [mirror.address for mirror in started[1:]])
    download(tmp_path, started[0].address if named else None, say=print)
    assert [len(mirror.asked) for mirror in started] == [4 if place == first else 0 for place in range(3)]
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
    mirror = serve(served(*NAMES))
    put_all(tmp_path)
    assert len(lines_of(tmp_path, mirror.address)) == 1
    assert mirror.asked == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 410, 415, 451, 200])
def test_a_name_that_a_server_does_not_hand_out_leaves_the_plain_one(serve: Serve, tmp_path: Path, status: int) -> None:
    page = Answer(b"<html>not here</html>", status)
    answers = {name: Answer(content) for name, content in FILES.items()}
    mirror = serve(answers | {f"{name}.gz": page for name in NAMES})
    lines_of(tmp_path, mirror.address)
    assert stored(tmp_path) == FILES


@pytest.mark.parametrize("status", [407, 408, 425, 429, 500, 503])
def test_a_server_that_is_not_to_be_asked_now_is_not_asked_for_the_plain_file(
    serve: Serve, tmp_path: Path, status: int
) -> None:
    plain = {name: Answer(content) for name, content in FILES.items()}
    mirror = serve(plain | {f"{name}.gz": Answer(status=status) for name in NAMES})
    assert any(str(status) in line for line in lines_of(tmp_path, mirror.address))
    assert mirror.asked == [f"{NAMES[0]}.gz"]


# ---- faults


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({}, "{url}"),
        ({".gz": Answer(status=500)}, "{url}.gz: 500"),
        ({".gz": Answer(status=429)}, "{url}.gz: 429"),
        ({".gz": Answer(status=403), "": Answer(status=410)}, "{url}.gz: 403 {url}: 410"),
        ({"": Answer(status=999)}, "{url}: 999"),
        ({".gz": Answer(status=0)}, "{url}.gz"),
        ({".gz": Answer(raw=b"\r\n\x1b[31m\r\n\r\n")}, "{url}.gz"),
        ({".gz": Answer(status=302, headers=(("Location", "ftp://127.0.0.1/mnist"),))}, "{url}.gz"),
        ({".gz": Answer(status=302, headers=(("Location", f"{FAULTY}.gz"),))}, "{url}.gz: 302"),
        ({".gz": Answer(PACKED[:9], announced=len(PACKED))}, f"{{url}}.gz: 9 {len(PACKED)}"),
        ({"": Answer(CONTENT[:9], announced=len(CONTENT))}, f"{{url}}: 9 {len(CONTENT)}"),
        ({"": Answer(b"", announced=len(CONTENT))}, f"{{url}}: 0 {len(CONTENT)}"),
        ({"": Answer(CONTENT, announced=10**30)}, f"{{url}}: {10**30:,} {len(CONTENT)}"),
        ({"": Answer(CONTENT + b"0")}, f"{{url}}: {len(CONTENT) + 1} {len(CONTENT)}"),
        ({"": Answer(CONTENT[:-1], announced="-1")}, f"{FAULTY}: {len(CONTENT) - 1} {len(CONTENT)}"),
        ({".gz": Answer(PACKED[:-3])}, "{url}.gz"),
        ({".gz": Answer(PACKED[:-5] + b"\0" + PACKED[-4:])}, "{url}.gz"),
        ({".gz": Answer(PACKED[:10] + b"\xff" * 9)}, "{url}.gz"),
        ({".gz": Answer(b"<html>not here</html>")}, "{url}.gz: 21"),
        ({".gz": Answer(gzip.compress(CONTENT + b"0"))}, f"{{url}}.gz: {len(CONTENT)}"),
        ({".gz": Answer(gzip.compress(FLIPPED))}, f"{FAULTY}: {md5(FLIPPED)} {md5(CONTENT)}"),
        ({"": Answer(FLIPPED)}, f"{FAULTY}: {md5(FLIPPED)} {md5(CONTENT)}"),
    ],
)
def test_a_faulty_file_is_told_in_a_line_and_comes_from_the_next_source(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Answer], told: str
) -> None:
    bad = serve(served(*NAMES[:1], *NAMES[2:]) | {f"{FAULTY}{suffix}": answer for suffix, answer in answers.items()})
    good = serve(served(*NAMES))
    monkeypatch.setattr(MNIST, "mirrors", [good.address])
    put(tmp_path, FAULTY, b"as before")

    said: list[tuple[str, dict[str, bytes]]] = []
    download(tmp_path, bad.address, lambda line: said.append((line, stored(tmp_path))))

    (first, _), (fault, stored_then), (second, _), _, (last, _) = said
    assert bad.address in first and good.address in second
    assert all(part in fault for part in told.format(url=bad.address + FAULTY).split())
    assert all(line.isprintable() for line, _ in said)
    # When the fault is told, the file before it is there, the faulty one as it was, and nothing half-written.
    assert stored_then == {NAMES[0]: FILES[NAMES[0]], FAULTY: b"as before"}
    assert good.asked == [f"{name}.gz" for name in NAMES[1:]]
    assert stored(tmp_path) == FILES
    # What the user named did not do, and the success of others does not hide it.
    assert "MNIST_MIRROR" in last and fault in last


@pytest.mark.parametrize(
    "address",
    [
        *("ftp://127.0.0.1/mnist/", "data:text/plain,", "/data/mnist", "mnist", "http:", "://", "htps://127.0.0.1"),
        *("http:///mnist", "http://127.0.0.1:port/", "http://127.0.0.1:99999/", "http://two words/", "http://[::1/"),
        *("http://127.0.0.1:0/", f"http://{'x' * 70}.example/", "http://a..b/", "file:///nowhere/at/all"),
        *("file://elsewhere/mnist", "file:///mnist%00", "file:///dev", "file:", "HTTPS://"),
    ],
)
def test_an_address_that_leads_nowhere_is_told_in_a_line_and_the_next_source_is_tried(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    good = serve(served(*NAMES))
    monkeypatch.setattr(MNIST, "mirrors", [good.address])
    first, fault, second, _, last = lines_of(tmp_path, address)
    assert address in first and good.address in second and fault.startswith(address.rstrip("/"))
    assert "MNIST_MIRROR" in last and fault in last
    assert stored(tmp_path) == FILES


def test_nothing_but_http_is_spoken_where_a_server_leads(serve: Serve, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        away = (("Location", f"ftp://127.0.0.1:{other.getsockname()[1]}/mnist"),)
        mirror = serve({f"{NAMES[0]}.gz": Answer(status=302, headers=away)})
        lines_of(tmp_path, mirror.address)
        assert mirror.asked == [f"{NAMES[0]}.gz"]
        with pytest.raises(BlockingIOError):
            other.accept()


def test_the_last_line_tells_whether_some_files_are_of_the_users_mirror(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [serve(served(*NAMES)).address])
    notes = []
    for count in (0, 2):
        mirror = serve(served(*NAMES[:count]))
        *_, last = lines_of(tmp_path / str(count), mirror.address)
        notes.append(last[: last.index(mirror.address)])
    assert notes[0] != notes[1]


def test_a_refused_connection_is_told_and_the_next_source_is_tried(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = serve(served(*NAMES))
    monkeypatch.setattr(MNIST, "mirrors", [good.address])
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        lines = lines_of(tmp_path, address)
    assert lines[1].startswith(f"{address}/{NAMES[0]}.gz: ") and "refused" in lines[1]
    assert stored(tmp_path) == FILES


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_in_a_folder_is_not_opened(tmp_path: Path, kind: str) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    path = mirror / f"{NAMES[0]}.gz"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    for name, content in FILES.items():
        (mirror / name).write_bytes(content)
    lines_of(tmp_path / "raw", mirror.as_uri())
    assert stored(tmp_path / "raw") == FILES


def test_when_no_source_delivers_the_missing_files_and_the_way_out_are_named(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = [serve(served(*NAMES[:2])), serve({})]
    monkeypatch.setattr(MNIST, "mirrors", [started[1].address])
    *_, fault, _, _, _, _, message = lines_of(tmp_path, started[0].address)
    assert [name for name in NAMES if f" {name}" in message.split(":")[1]] == NAMES[2:]
    assert "MNIST_MIRROR" in message and fault in message
    assert str(tmp_path / "MNIST" / "raw") in message
    assert stored(tmp_path) == {name: FILES[name] for name in NAMES[:2]}


# ---- bounds: size, memory, time


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    "answer",
    [
        Answer(BOMB),
        Answer(ENDLESS),
        Answer(ENDLESS, announced=1 << 40),
        Answer(raw=[HEAD, *[b"X: y\r\n"] * 1_000_000]),
        Answer(raw=ENDLESS),
        Answer([b"100000\r\n" + MEGABYTE + b"\r\n"] * 64, headers=(("Transfer-Encoding", "chunked"),)),
        Answer(ENDLESS, status=302, headers=(("Location", "/elsewhere"),)),
        Answer(ENDLESS, status=404),
    ],
    ids=["bomb", "endless", "announced", "headers", "status line", "chunked", "redirect", "not found"],
)
def test_no_more_than_the_known_size_is_held(serve: Serve, answer: Answer, suffix: str) -> None:
    source = mirror_source(serve({f"{NAMES[0]}{suffix}": answer}).address)
    with little_memory(4 << 20), pytest.raises(SourceError):
        source(NAMES[0])


def test_a_gzip_bomb_is_left_at_the_known_size() -> None:
    with little_memory(2 << 20), pytest.raises(SourceError):
        gunzip(BOMB, 100_000)


def test_a_large_file_in_a_folder_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / NAMES[0]).open("wb") as file:
        file.truncate(1 << 40)
    with little_memory(1 << 20), pytest.raises(SourceError, match="1,099,511,627,776"):
        mirror_source(tmp_path.as_uri())(NAMES[0])


@pytest.fixture
def ended() -> Iterator[threading.Event]:
    """Ends the servers that would never."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize(
    "start",
    [b"", HEAD + b"X: ", HEAD + b"\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"],
    ids=["status line", "header", "body", "length of a chunk"],
)
def test_a_server_that_drips_is_left(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, ended: threading.Event, start: bytes
) -> None:
    def drops() -> Iterator[bytes]:
        yield start
        while not ended.wait(0.01):
            yield b"1"

    assert pace.PATIENCE_S <= 60
    monkeypatch.setattr(pace, "PATIENCE_S", 0.2)
    mirror = serve({f"{NAMES[0]}.gz": Answer(raw=drops())})
    with pytest.raises(SourceError):
        mirror_source(mirror.address)(NAMES[0])
    assert mirror.asked == [f"{NAMES[0]}.gz"] and not ended.is_set()


def test_a_slow_server_that_keeps_going_is_not_left(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly() -> Iterator[bytes]:
        for place in range(0, len(CONTENT), 2):
            yield CONTENT[place : place + 2]
            time.sleep(0.1)

    monkeypatch.setattr(pace, "PATIENCE_S", 0.5)
    monkeypatch.setattr(pace, "SLOWEST_BYTES_PER_S", 0.1)
    assert mirror_source(serve({FAULTY: Answer(slowly())}).address)(FAULTY) == CONTENT


def test_a_server_that_sends_fast_and_then_drips_is_left(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, ended: threading.Event
) -> None:
    def drops() -> Iterator[bytes]:
        yield HEAD + b"\r\n" + bytes(20 << 20)  # eleven minutes at the least speed
        while not ended.wait(0.01):
            yield b"1"

    mirror, start = serve({"file": Answer(raw=drops())}), time.monotonic()
    monkeypatch.setattr(mirrors, "monotonic", lambda: time.monotonic() * 100)  # a minute in 0.6 seconds
    with pytest.raises(SourceError, match="too slow"):
        read(mirror.address, "file", 30 << 20)
    assert time.monotonic() - start < 3 and not ended.is_set()


def seconds_until_left(arrived: Callable[[int], float], most: int = 3600) -> int | None:
    """When a source is left that has sent so much by each second; None for never."""
    watched = Pace()
    for second in range(most):
        try:
            watched.check(int(arrived(second)), second)
        except SourceError:
            return second
    return None


@pytest.mark.parametrize(
    ("arrived", "left"),
    [
        (lambda second: 0, 60),
        (lambda second: second, 60),
        (lambda second: second * (SLOWEST_BYTES_PER_S - 1), 60),
        (lambda second: second * SLOWEST_BYTES_PER_S, None),
        (lambda second: (47 << 20) + second, 60),  # all of it before the first mark
        (lambda second: (47 << 20) * (second > 0) + second, 61),
        (lambda second: min(second, 500) * 100_000, 541),  # 19 seconds without anything are 1.9 MB too little
        (lambda second: second // 50 * 50 * 100_000, None),  # in gusts
    ],
)
def test_each_minute_must_bring_a_minutes_bytes(arrived: Callable[[int], float], left: int | None) -> None:
    assert PATIENCE_S == 60
    assert seconds_until_left(arrived) == left


# ---- what is told of addresses


def with_login(address: str, login: str, query: str) -> str:
    return f"{address.replace('://', f'://{login}@')}{query}"


def test_user_password_and_query_are_used_and_never_told(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {f"{name}.gz?key=SECRET": Answer(gzip.compress(FILES[name])) for name in NAMES[:2]}
    mirror, good = serve(first), serve(served(*NAMES))
    monkeypatch.setattr(MNIST, "mirrors", [good.address])
    lines = lines_of(tmp_path, with_login(mirror.address, "me:SECRET%40", "?key=SECRET#SECRET"))
    assert stored(tmp_path) == FILES
    assert mirror.asked[:2] == list(first)
    assert set(mirror.logins) == {f"Basic {b64encode(b'me:SECRET@').decode()}"}
    assert not any("SECRET" in line or "me:" in line for line in lines)
    assert mirror.address in lines[0] and mirror.address in lines[-1]


def test_a_password_is_not_handed_on_to_where_a_server_leads(serve: Serve, tmp_path: Path) -> None:
    other = serve(served(*NAMES))
    leading = {f"{name}.gz": Answer(status=307, headers=(("Location", f"{other.address}{name}.gz"),)) for name in NAMES}
    mirror = serve(leading)
    download(tmp_path, with_login(mirror.address, "me:SECRET", ""), say=print)
    assert stored(tmp_path) == FILES
    assert None not in mirror.logins and set(other.logins) == {None}


@pytest.mark.parametrize(
    "address",
    [
        *(f"http://me:{secret}@[::1/mnist" for secret in ("SECRET", "SEC/SECRET", "?SECRET", "#SECRET", "a@SECRET")),
        *("http://127.0.0.1:SECRET@/", "me:SECRET@host/mnist", "http:/me:SECRET@host/", "ftp://me:SECRET@host/mnist"),
        *("http://[::1/?SECRET", "http://[::1/#SECRET", "me:SECRET@x://host/", "http://me:http://SECRET@host/"),
    ],
)
def test_a_malformed_address_tells_no_secret(tmp_path: Path, address: str) -> None:
    assert not any("SECRET" in line for line in lines_of(tmp_path, address))


# A hundred passwords.
@settings(max_examples=100)
@given(before=st.text(), after=st.text(), rest=st.sampled_from(["", "/mnist", "/mnist?SECRET", "#SECRET"]))
def test_whatever_is_in_a_password_it_is_not_shown(before: str, after: str, rest: str) -> None:
    assert "SECRET" not in shown(f"https://me:{before}SECRET{after}@host{rest}")


def test_an_address_without_secrets_is_shown_as_it_is() -> None:
    for address in ("https://host:80/a/b/", "HTTP://host", "file:///a@b/c", "/a/b", "x"):
        assert shown(address) == address


@pytest.mark.parametrize(
    "word",
    [
        *("/x.whl?token=SECRET", "'/x.whl?token=SECRET')", '("/x.whl?token=SEC\'RET"):', "url='/x.whl?token=SECRET',"),
        *("x.whl#SECRET", "?token=SECRET", "/x?to=http://me:SECRET@host/", "me:SECRET@host/x", "a=me:SECRET@b://c"),
        *(
            "http://me:SECRET@host/x?SECRET",
            "(http://me:SEC'SECRET@host/x?SEC'RET)",
            "'file:///a','http://a:SECRET@b/'",
        ),
    ],
)
def test_an_address_or_a_path_in_a_message_tells_no_secret(word: str) -> None:
    told = brief(f"Max retries exceeded with url: {word} (Caused by it)")
    assert "RET" not in told
    assert told.startswith("Max retries exceeded with url: ") and told.endswith(" (Caused by it)")


def test_a_message_without_secrets_is_told_as_it_is() -> None:
    pool = "HTTPConnectionPool(host='127.0.0.1', port=1): why? Really?! (see https://pip.pypa.io/en/x), 'http://[::1]'"
    assert brief(pool) == pool


def test_a_long_word_in_a_message_takes_no_long_time() -> None:
    start = time.monotonic()
    for piece in ("a", ")", "/", "?", "a:", "http://", "a@"):
        brief(piece * 100_000)
    assert time.monotonic() - start < 5


# ---- what reaches the terminal


def test_no_control_character_from_outside_reaches_the_terminal(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = (("Location", f"http://{ESCAPE}/"),)
    bad = [
        Answer(status=500, reason=ESCAPE),
        Answer(status=302, reason=ESCAPE, headers=away),
        Answer(raw=f"{ESCAPE}\n".encode()),
        Answer(raw=f"HTTP/1.1 {ESCAPE}\r\n\r\n".encode()),
    ]
    addresses = [serve({f"{NAMES[0]}.gz": answer}).address for answer in bad]
    monkeypatch.setattr(MNIST, "mirrors", [*addresses, f"http://{ESCAPE}/", f"file:///{ESCAPE}"])
    lines = lines_of(tmp_path / ESCAPE.replace("/", ""), f"{ESCAPE}\udcff\u202e")
    # A line for each source and one for its fault, with the wheel, and the error.
    assert len(lines) == 2 * (1 + len(bad) + 2 + 1) + 1


@settings(max_examples=100)
@given(text=st.text())
def test_what_is_printable_stays_and_all_else_is_escaped(text: str) -> None:
    assert printable(text).isprintable() and brief(text).isprintable()
    assert printable(text) == text or not text.isprintable()


# ---- what else lies in the folder


def leftovers(raw: Path) -> None:
    """What interrupted downloads, torchvision and people leave."""
    put(raw, f".{NAMES[0]}.part", b"half")
    put(raw, f"{NAMES[0]}.gz", b"packed")
    (raw / "MNIST" / "processed").mkdir(parents=True)
    (raw / "MNIST" / "processed" / "training.pt").write_bytes(b"0")
    (raw / ".hidden").mkdir()
    (raw / "empty").mkdir()


@pytest.mark.parametrize("there", [True, False])
def test_nothing_but_the_four_files_is_left_and_what_is_removed_is_told(
    serve: Serve, tmp_path: Path, there: bool
) -> None:
    raw = tmp_path / "raw"
    if there:
        put_all(raw)
    leftovers(raw)
    mirror = serve(served(*NAMES))
    [line] = [line for line in lines_of(raw, mirror.address) if "processed" in line]
    assert ".gz" in line and ".hidden" in line
    assert stored(raw) == FILES
    assert {path.name for path in raw.rglob("*") if path.is_dir()} == {"MNIST", "raw"}
    assert len(lines_of(raw, mirror.address)) == 1


def test_what_is_in_the_way_is_removed(serve: Serve, tmp_path: Path) -> None:
    mirror = serve(served(*NAMES))
    for name in ("file", "folder", "temporary"):
        (tmp_path / name).mkdir()
    (tmp_path / "file" / "MNIST").write_bytes(b"")
    (tmp_path / "folder" / "MNIST" / "raw" / NAMES[0]).mkdir(parents=True)
    (tmp_path / "temporary" / "MNIST" / "raw" / f".{NAMES[0]}.part").mkdir(parents=True)
    for name in ("file", "folder", "temporary"):
        download(tmp_path / name, mirror.address, say=print)
        assert stored(tmp_path / name) == FILES


def test_links_are_not_followed(serve: Serve, tmp_path: Path) -> None:
    raw, elsewhere = tmp_path / "raw", tmp_path / "elsewhere"
    put_all(elsewhere)
    put(elsewhere, "precious", b"1")
    before = stored(elsewhere)
    raw.mkdir()
    (raw / "MNIST").symlink_to(elsewhere / "MNIST")
    (raw / "link").symlink_to(elsewhere)
    download(raw, serve(served(*NAMES)).address, say=print)
    assert stored(raw) == FILES and not any(path.is_symlink() for path in raw.rglob("*"))
    assert stored(elsewhere) == before


def test_a_download_that_fails_removes_nothing(tmp_path: Path) -> None:
    leftovers(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError):
        download(tmp_path, None, say=print)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("raw", [".", "..", "../.."])
def test_a_folder_that_holds_more_than_mnist_is_refused(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: str
) -> None:
    put_all(tmp_path)
    (tmp_path / "project" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "folder")
    before = sorted(tmp_path.rglob("*"))
    mirror = serve(served(*NAMES))
    with pytest.raises(InputError):
        download(Path(raw), mirror.address, say=print)
    assert sorted(tmp_path.rglob("*")) == before and mirror.asked == []


# ---- when nothing can be written


def test_a_full_disk_is_told_in_a_line_and_leaves_nothing_half_written(serve: Serve, tmp_path: Path) -> None:
    mirror = serve(served(*NAMES))
    put(tmp_path, NAMES[0], b"as before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may be longer, as on a disk that fills up: the first one fails in the middle.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        lines = lines_of(tmp_path, mirror.address)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path / "MNIST" / "raw" / NAMES[0]) in lines[-1]
    assert stored(tmp_path) == {NAMES[0]: b"as before"}
    # It is no fault of the source: no other is tried.
    assert len(lines) == 2


def test_a_folder_that_cannot_be_written_to_is_told_in_a_line(serve: Serve, tmp_path: Path) -> None:
    mirror = serve(served(*NAMES))
    (tmp_path / "file").write_bytes(b"")
    # The first cannot be written to by anybody, root included.
    for raw in (Path("/sys/mnist"), tmp_path / "file"):
        lines = lines_of(raw, mirror.address)
        assert len(lines) == 2 and str(raw) in lines[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
@pytest.mark.parametrize("mode", [0o500, 0o300, 0])
@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_rights_stays_as_it_was(serve: Serve, tmp_path: Path, mode: int, there: bool) -> None:
    put_all(tmp_path)
    put(tmp_path, NAMES[0], FILES[NAMES[0]] if there else b"as before")
    put(tmp_path, f"{ESCAPE}.part", b"left")
    before, folder = stored(tmp_path), tmp_path / "MNIST" / "raw"
    folder.chmod(mode)
    try:
        lines = lines_of(tmp_path, serve(served(*NAMES)).address)
    finally:
        folder.chmod(0o700)
    assert str(folder) in lines[-1]
    assert stored(tmp_path) == before


# ---- any bytes at all


def outcome(source: Callable[[], bytes]) -> bytes | None:
    """What comes, or None for the one known error, with little memory."""
    with little_memory(1 << 20):
        try:
            return source()
        except SourceError as error:
            assert str(error).isprintable()
            return None


# Four hundred archives.
@settings(max_examples=400)
@given(content=mutated(PACKED) | mutated(PACKED * 3))
def test_any_archive_unpacks_to_no_more_than_is_known_or_is_refused(content: bytes) -> None:
    unpacked = outcome(lambda: gunzip(content, len(CONTENT)))
    assert unpacked is None or len(unpacked) <= len(CONTENT)
    assert (unpacked is not None) or content != PACKED


def test_any_answer_of_a_server_is_a_file_or_refused(serve: Serve) -> None:
    answers: dict[str, Answer] = {}
    source: Source = mirror_source(serve(answers).address)
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode()

    # A hundred answers.
    @settings(max_examples=100)
    @given(answer=mutated(head + CONTENT))
    def is_a_file_or_refused(answer: bytes) -> None:
        answers[FAULTY] = Answer(raw=answer)
        content = outcome(lambda: source(FAULTY))
        assert content is None or len(content) <= len(CONTENT)
        assert content == CONTENT or answer != head + CONTENT

    is_a_file_or_refused()
