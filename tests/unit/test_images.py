"""Labelled images: intensities, batches, and how splits are stored and loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.sealed import write_sealed
from mnist_cnn.data.deskew import deskew
from mnist_cnn.data.images import (
    STATISTICS,
    Images,
    intensities,
    load_images,
    load_normalisation,
    load_splits,
    save_images,
)
from mnist_cnn.prepare.split import statistics
from tests.helpers import bar, noise

SLANTED = Images(torch.cat([bar(lean / 10) for lean in range(-6, 7)]), torch.arange(13) % 10)


def equal(first: Images, second: Images) -> bool:
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_intensities_run_from_zero_to_one() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    result = intensities(pixels)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, (torch.arange(256) / 255).view(1, 1, 16, 16))
    assert result.min() == 0 and result.max() == 1
    assert pixels.flatten().tolist() == list(range(256))


@given(count=st.integers(1, 100), size=st.integers(1, 120))
def test_batches_cover_everything_in_order(count: int, size: int) -> None:
    images = noise(count)
    batches = list(images.batches(size))
    assert equal(Images(*(torch.cat(tensors) for tensors in zip(*batches, strict=True))), images)
    assert all(len(batch.labels) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1].labels) <= size


def test_images_are_taken_with_their_labels_in_the_asked_order() -> None:
    images = noise(10)
    taken = images.take(torch.tensor([7, 2, 2]))
    assert torch.equal(taken.pixels, torch.stack([images.pixels[7], images.pixels[2], images.pixels[2]]))
    assert taken.labels.tolist() == [7, 2, 2]


@pytest.mark.parametrize(("count", "expected"), [(3, 3), (11, 10)])
def test_the_first_images_are_all_where_there_are_fewer(count: int, expected: int) -> None:
    assert equal(noise(10).first(count), noise(10).take(torch.arange(expected)))


def test_images_come_back_as_they_were_written_and_deskewed(tmp_path: Path) -> None:
    path = tmp_path / "new folder/train.safetensors"
    save_images(path, SLANTED)
    upright = Images(deskew(SLANTED.pixels), SLANTED.labels)
    assert not equal(SLANTED, upright)
    assert equal(load_images(path), SLANTED)
    assert equal(load_images(path, deskewed=False), SLANTED)
    assert equal(load_images(path, deskewed=True), upright)


def test_equal_images_give_equal_bytes(tmp_path: Path) -> None:
    images = noise(20)
    strided = Images(images.pixels.transpose(1, 2).contiguous().transpose(1, 2), images.labels.clone())
    for name, saved in (("a", images), ("b", strided), ("c", noise(20, seed=1))):
        save_images(tmp_path / name, saved)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


# Nothing, part of the header, all but the last byte.
@pytest.mark.parametrize("bytes_left", [None, 0, 60, -1])
def test_missing_and_damaged_images_are_named(tmp_path: Path, bytes_left: int | None) -> None:
    path = tmp_path / "val.safetensors"
    save_images(path, noise(20))
    content = path.read_bytes()
    path.unlink()
    if bytes_left is not None:
        path.write_bytes(content[:bytes_left])
    with pytest.raises(InputError) as error:
        load_images(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "'dvc repro split'" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("tensors", "deskewed"), [(("pixels",), False), (("labels",), False), (("pixels", "labels"), True)]
)
def test_a_file_of_other_tensors_is_named(tmp_path: Path, tensors: tuple[str, ...], deskewed: bool) -> None:
    save_file({name: torch.zeros(2, 28, 28) for name in tensors}, tmp_path / "val.safetensors")
    with pytest.raises(InputError, match=r"val\.safetensors: "):
        load_images(tmp_path / "val.safetensors", deskewed)


@pytest.mark.parametrize("deskewed", [False, True])
def test_splits_are_the_images_named_and_the_recorded_normalisation(tmp_path: Path, deskewed: bool) -> None:
    images = {"train": SLANTED, "val": SLANTED.first(5), "test": noise(3)}
    for name, split in images.items():
        save_images(tmp_path / f"{name}.safetensors", split)
    recorded = statistics(images)
    write_sealed(tmp_path / STATISTICS, recorded)
    splits = load_splits(tmp_path, images, deskewed)
    assert splits.normalisation == (recorded["mean"], recorded["std"])
    for loaded, name in ((splits.train, "train"), (splits.val, "val"), (splits.test, "test")):
        assert equal(loaded, load_images(tmp_path / f"{name}.safetensors", deskewed))
    assert list(load_splits(tmp_path, ("train", "val"), deskewed).images) == ["train", "val"]
    (tmp_path / "val.safetensors").unlink()
    with pytest.raises(InputError, match=r"val\.safetensors: "):
        load_splits(tmp_path, images, deskewed)


@pytest.mark.parametrize("content", [None, {"mean": 0.13}, {"mean": 0.13, "std": None}])
def test_missing_and_other_statistics_are_named(tmp_path: Path, content: dict[str, Any] | None) -> None:
    path = tmp_path / STATISTICS
    if content is not None:
        write_sealed(path, content)
    with pytest.raises(InputError) as error:
        load_normalisation(path)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1
