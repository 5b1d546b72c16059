"""The raw files, as the stage that splits them finds them: intact, or refused in a line that says what to do."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.mnist import IMAGE_SIDE, TEST_IMAGES, TRAIN_IMAGES
from mnist_cnn.data.images import load_splits
from mnist_cnn.prepare.raw import RAW_FILES, is_intact, load_raw
from stages import split
from tests.helpers import ROOT
from tests.small_mnist import DIGITS, FILES, NAMES, make_known, md5, put, put_all

CONTENT = FILES[NAMES[0]]


def test_the_known_sizes_are_those_of_mnist() -> None:
    for part, count in (("train", TRAIN_IMAGES), ("t10k", TEST_IMAGES)):
        assert RAW_FILES[f"{part}-images-idx3-ubyte"].size == 16 + count * IMAGE_SIDE**2
        assert RAW_FILES[f"{part}-labels-idx1-ubyte"].size == 8 + count


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the small files, which are the known ones."""
    make_known(monkeypatch)
    put_all(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_images_and_labels_are_those_of_the_files(raw: Path, part: str) -> None:
    for loaded, expected in zip(load_raw(raw, part), DIGITS[part], strict=True):
        assert loaded.dtype == np.uint8 and np.array_equal(loaded, expected)
        loaded[0] = 7  # PyTorch takes no array that cannot be written to


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a byte flipped": flip,
    "truncated": lambda path: os.truncate(path, 5),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 1),
    "too large to read": lambda path: os.truncate(path, 1 << 40),
    "missing": Path.unlink,
    "folder": replaced_by(Path.mkdir),
    "pipe": replaced_by(os.mkfifo),
    "link to nowhere": replaced_by(lambda path: path.symlink_to("nowhere")),
    "link to itself": replaced_by(lambda path: path.symlink_to(path)),
    "endless": replaced_by(lambda path: path.symlink_to("/dev/zero")),
    "no folder": lambda path: path.parent.rename(path.parent.with_name("other")),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused_and_never_used(raw: Path, damage: Callable[[Path], object], name: str) -> None:
    path = raw / "MNIST" / "raw" / name
    damage(path)
    assert not is_intact(raw, name)
    with pytest.raises(InputError) as error:
        load_raw(raw, name.split("-")[0])
    message = str(error.value)
    assert message.isprintable()
    # The first that is damaged, the way back, and which object of DVC's cache would undo it.
    [named] = [name for name in NAMES if f"{path.with_name(name)}: " in message]
    assert named == name or damage is DAMAGE["no folder"]
    digest = md5(FILES[named])
    assert "dvc repro --force download" in message and f"files/md5/{digest[:2]}/{digest[2:]}" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_an_unreadable_file_is_refused(raw: Path) -> None:
    path = raw / "MNIST" / "raw" / NAMES[0]
    path.chmod(0)
    with pytest.raises(InputError, match=NAMES[0]):
        load_raw(raw, "train")


def run_split(monkeypatch: pytest.MonkeyPatch, raw: Path, splits: Path, sizes: str) -> None:
    params = splits.parent / "params.yaml"
    old = "    train: 55000\n    val: 5000\n"
    text = (ROOT / "params.yaml").read_text()
    assert old in text
    params.write_text(text.replace(old, sizes))
    options = ["--params", str(params), "--raw", str(raw), "--splits", str(splits)]
    monkeypatch.setattr(sys, "argv", ["stage", *options])
    cli.run(split.main)


SIZES = "    train: 4\n    val: 2\n"


def test_the_stage_writes_the_splits_of_intact_files(
    monkeypatch: pytest.MonkeyPatch, raw: Path, tmp_path: Path
) -> None:
    # What torchvision would take in place of the raw files.
    (raw / "MNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(6, 28, 28), torch.zeros(6)), raw / "MNIST" / "processed" / name)
    run_split(monkeypatch, raw, tmp_path / "splits", SIZES)
    images = load_splits(tmp_path / "splits", deskewed=False, names=("train", "val", "test")).images
    assert {name: len(split.labels) for name, split in images.items()} == {"train": 4, "val": 2, "test": 3}
    for part, names in (("train", ("train", "val")), ("t10k", ("test",))):
        pixels, labels = (torch.cat(parts).numpy() for parts in zip(*(images[name] for name in names), strict=True))
        assert np.array_equal(pixels, DIGITS[part][0]) and np.array_equal(labels, DIGITS[part][1])


@pytest.mark.parametrize("name", NAMES)
def test_the_stage_ends_with_a_line_and_writes_nothing_of_a_damaged_file(
    monkeypatch: pytest.MonkeyPatch, raw: Path, tmp_path: Path, name: str
) -> None:
    flip(raw / "MNIST" / "raw" / name)
    with pytest.raises(SystemExit) as ended:
        run_split(monkeypatch, raw, tmp_path / "splits", SIZES)
    # Python writes a text to standard error and ends with status 1.
    assert isinstance(ended.value.code, str) and name in ended.value.code and "\n" not in ended.value.code
    assert not (tmp_path / "splits").exists()


# Two hundred files: the right one with a few places replaced, or any bytes.
@settings(max_examples=200)
@given(data=st.data())
def test_any_other_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(CONTENT)))
    new = data.draw(st.binary(max_size=4))
    cut = data.draw(st.sampled_from([len(new), 0, 4]))
    content = data.draw(st.just(CONTENT[:place] + new + CONTENT[place + cut :]) | st.binary(max_size=100))
    folder = tmp_path_factory.getbasetemp() / "any"
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_known(monkeypatch)
        if not folder.exists():
            put_all(folder)
        put(folder, NAMES[0], content)
        try:
            pixels, _ = load_raw(folder, "train")
        except InputError:
            assert content != CONTENT
        else:
            assert content == CONTENT and np.array_equal(pixels, DIGITS["train"][0])
