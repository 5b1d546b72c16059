"""Data sets beside MNIST: the published archives, and one's own images."""

import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torchvision import datasets

from mnist_cnn.common.errors import InputError
from mnist_cnn.prepare.custom import SUMS, stored_set, take
from mnist_cnn.prepare.download import download
from mnist_cnn.prepare.raw import KNOWN, NAMES, PARTS, RawFile, RawSet, load_raw, raw_folder
from mnist_cnn.settings.datasets import PUBLISHED
from tests.helpers import idx
from tests.small_mnist import DIGITS, FILES, md5

CASES = 100
ARCHIVES = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in FILES.items()}


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
def test_archives_and_classes_are_those_that_torchvision_knows(name: str) -> None:
    known = KNOWN[name]
    theirs = getattr(datasets, known.folder)
    assert {file: found.md5 for file, found in known.files.items()} == dict(theirs.resources)
    assert known.title == PUBLISHED[name].title and list(PUBLISHED[name].classes) == theirs.classes


def small_archives() -> RawSet:
    return RawSet("Small", "KMNIST", {name: RawFile(len(found), md5(found)) for name, found in ARCHIVES.items()})


def test_archives_are_stored_as_they_come_and_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mirror, raw = tmp_path / "mirror", tmp_path / "raw"
    mirror.mkdir()
    for name, content in ARCHIVES.items():
        (mirror / name).write_bytes(content)
    known = small_archives()
    monkeypatch.setattr(datasets.KMNIST, "mirrors", [mirror.as_uri()])
    (raw / "MNIST/raw").mkdir(parents=True)
    (raw / "MNIST/raw/left").touch()  # of another set, which was chosen before
    download(raw, None, print, known)
    stored = {file.relative_to(raw / "KMNIST/raw").as_posix(): file for file in raw.rglob("*") if file.is_file()}
    assert {name: file.read_bytes() for name, file in stored.items()} == ARCHIVES
    for part in PARTS:
        for loaded, expected in zip(load_raw(raw, part, known), DIGITS[part], strict=True):
            assert np.array_equal(loaded, expected)


def test_another_archive_with_the_same_images_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1, mtime=0))
    monkeypatch.setattr(datasets.KMNIST, "mirrors", [tmp_path.as_uri()])
    with pytest.raises(InputError, match="Small: no source delivered"):
        download(tmp_path / "raw", None, print, small_archives())


# ---- One's own


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with own images, two of its files compressed."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, content in FILES.items():
        if "images" in name:
            (folder / name).write_bytes(content)
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder


def taken(own: Path, classes: int = 10) -> list[str]:
    said: list[str] = []
    take(own, own.parent / "raw", classes, said.append)
    return said


def test_own_images_are_taken_and_their_sums_written_down_at_first(own: Path, tmp_path: Path) -> None:
    assert len(taken(own)) == 2
    written = (own / SUMS).read_text()
    for line in written.splitlines():
        found, name = line.split()
        assert hashlib.md5((own / name).read_bytes()).hexdigest() == found
    raw = tmp_path / "raw"
    known = stored_set(raw)
    for part in PARTS:
        for loaded, expected in zip(load_raw(raw, part, known), DIGITS[part], strict=True):
            assert np.array_equal(loaded, expected)
    (raw / "left").touch()
    assert len(taken(own)) == 2 and (own / SUMS).read_text() == written and not (raw / "left").exists()


def test_other_images_than_those_written_down_are_refused_until_the_sums_are_deleted(own: Path) -> None:
    taken(own)
    images = own / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1] + b"\x07")
    before = (own / SUMS).read_text()
    with pytest.raises(InputError, match=f"^{own}: {images.name}: .*{SUMS}"):
        taken(own)
    assert (own / SUMS).read_text() == before
    (own / SUMS).unlink()
    taken(own)
    assert (own / SUMS).read_text() != before
    raw = own.parent / "raw"
    assert load_raw(raw, "train", stored_set(raw))[0].flat[-1] == 7


def test_stored_images_that_were_changed_are_refused(own: Path, tmp_path: Path) -> None:
    taken(own)
    raw = tmp_path / "raw"
    known = stored_set(raw)
    file = raw_folder(raw, known) / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    with pytest.raises(InputError, match=f"^{file}: .*'dvc repro --force download'"):
        load_raw(raw, "t10k", known)


def replace(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda own: (own / name).write_bytes(content)


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda own: (own / LABELS).unlink(), "train-labels-idx1-ubyte: is missing"),
        (replace(f"{IMAGES}.gz", b""), f"{IMAGES}: is there twice"),
        (replace(IMAGES, b""), f"{IMAGES}: is no file of images"),
        (replace(IMAGES, gzip.decompress(ARCHIVES[LABELS])), f"{IMAGES}: is no file of images"),
        (replace(IMAGES, FILES[IMAGES][:-1]), f"{IMAGES}: has 4,703 bytes .* 6 x 28 x 28"),
        (replace(IMAGES, idx(np.zeros((6, 32, 32), np.uint8))), "train: images of 32 x 32 .* 28 x 28"),
        (replace(IMAGES, idx(np.zeros((5, 28, 28), np.uint8))), "train: 5 images and 6 labels"),
        (lambda own: os.mkfifo((own / IMAGES).rename(own / "moved").with_name(IMAGES)), f"{IMAGES}: not a file"),
        (replace(LABELS, b"plain"), f"{LABELS}: not a gzip file"),
        (replace(LABELS, ARCHIVES[LABELS][:-9]), f"{LABELS}: truncated"),
        (replace(LABELS, gzip.compress(idx(np.full(6, 200, np.uint8)))), "train: label 200 .* 0 to 9"),
        (replace(SUMS, b"abc\n"), f"{SUMS}: is no list of sums"),
        (replace(SUMS, b"0  ../../x\n"), f"{SUMS}: is no list of sums"),
    ],
)
def test_what_is_wrong_with_own_images_is_told_in_a_line(
    own: Path, spoil: Callable[[Path], object], fault: str
) -> None:
    spoil(own)
    with pytest.raises(InputError, match=f"^{own}.*{fault}") as error:
        taken(own)
    assert len(str(error.value).splitlines()) == 1
    assert not (own.parent / "raw").exists()


@hypothesis_settings(max_examples=CASES)
@given(
    name=st.sampled_from(sorted(FILES)),
    place=st.integers(0, 24),
    written=st.binary(max_size=24),
    cut=st.integers(0, 24),
)
def test_whatever_bytes_own_files_have_they_are_taken_or_refused_in_a_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, place: int, written: bytes, cut: int
) -> None:
    own = tmp_path_factory.mktemp("own")
    for other, content in FILES.items():
        (own / other).write_bytes(content)
    content = FILES[name]
    (own / name).write_bytes(content[:place] + written + content[place + cut :])
    try:
        take(own, own / "../raw-of" / own.name, 10, lambda line: None)
    except InputError as error:
        assert str(error).startswith(str(own)) and len(str(error).splitlines()) == 1


def test_a_folder_that_would_be_cleared_is_refused(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.read_bytes() for file in own.iterdir()}
    for raw in (own, own.parent):
        with pytest.raises(InputError, match=f"^{own}: lies in "):
            take(own, raw, 10, print)
    monkeypatch.chdir(own.parent)
    with pytest.raises(InputError, match="working directory"):
        take(own, own.parent, 10, print)
    assert {file: file.read_bytes() for file in own.iterdir()} == before


def test_labels_are_of_the_classes_that_are_named(own: Path) -> None:
    with pytest.raises(InputError, match="label . is not allowed: 0 to 1, .* names 2"):
        taken(own, classes=2)


def test_names_of_files_are_mnists() -> None:
    assert set(NAMES) == set(FILES)
