"""The split, its storage, normalisation and batches."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from mnist_cnn.data import (
    Images,
    Normalisation,
    intensities,
    load_images,
    load_normalisation,
    save_images,
    split_indices,
    statistics,
)
from mnist_cnn.common.errors import InputError

METHODS = ("last", "random", "stratified")
SIZES = st.integers(1, 200)
SEEDS = st.integers(0, 2**32 - 1)


def digits(count: int, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.randint(10, (count,), generator=generator))


@given(method=st.sampled_from(METHODS), train=SIZES, val=SIZES, spare=st.integers(0, 50), seed=SEEDS)
def test_parts_are_disjoint_of_the_asked_sizes_and_reproducible(
    method: str, train: int, val: int, spare: int, seed: int
) -> None:
    labels = digits(train + val + spare, seed).labels
    random = torch.get_rng_state()
    parts = split_indices(labels, train, val, method, seed)
    assert [len(part) for part in parts] == [train, val]
    assert all(part.dtype == torch.int64 for part in parts)
    chosen = torch.cat(parts)
    assert len(chosen.unique()) == train + val
    assert 0 <= chosen.min() and chosen.max() < len(labels)
    for part, again in zip(parts, split_indices(labels, train, val, method, seed), strict=True):
        assert torch.equal(part, again)
    assert torch.equal(torch.get_rng_state(), random)


@given(train=SIZES, val=SIZES, spare=st.integers(0, 50))
def test_last_takes_the_end_for_validation_and_the_beginning_for_training(train: int, val: int, spare: int) -> None:
    chosen, held_out = split_indices(digits(train + val + spare).labels, train, val, "last", 0)
    assert chosen.tolist() == list(range(train))
    assert held_out.tolist() == list(range(train + spare, train + spare + val))


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_random_methods_draw_from_all_and_by_their_seed(method: str) -> None:
    labels = digits(1000).labels
    first, other = (split_indices(labels, 800, 100, method, seed)[1] for seed in (0, 1))
    assert not torch.equal(first, other)
    for held_out in (first, other):
        assert held_out.double().mean() == pytest.approx(500, abs=4 * 29)
        assert held_out.double().std() == pytest.approx(289, rel=0.2)


@given(per_class=st.lists(st.integers(48, 60), min_size=10, max_size=10), val=st.integers(1, 470), seed=SEEDS)
def test_stratified_keeps_the_share_of_each_class_to_within_one_image(
    per_class: list[int], val: int, seed: int
) -> None:
    labels = torch.arange(10).repeat_interleave(torch.tensor(per_class))
    for part in split_indices(labels, len(labels) - val, val, "stratified", seed):
        shares = torch.tensor(per_class) * len(part) / len(labels)
        assert ((torch.bincount(labels[part], minlength=10) - shares).abs() <= 1).all()


def test_stratified_keeps_the_shares_of_mnist_to_within_one_image() -> None:
    per_class = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    labels = torch.arange(10).repeat_interleave(per_class)
    for val in (10, 5000, 30_001):
        held_out = split_indices(labels, 60_000 - val, val, "stratified", val)[1]
        assert ((torch.bincount(labels[held_out], minlength=10) - per_class * val / 60_000).abs() <= 1).all()


@pytest.mark.parametrize("method", METHODS)
def test_more_images_than_there_are_cannot_be_split(method: str) -> None:
    labels = digits(100).labels
    split_indices(labels, 90, 10, method, 0)
    with pytest.raises(InputError, match=r"train 1,090 \+ val 10 is more than the 100 images"):
        split_indices(labels, 1090, 10, method, 0)
    with pytest.raises(InputError):
        split_indices(labels, 91, 10, method, 0)


@given(seed=SEEDS, count=st.integers(1, 50))
def test_statistics_are_those_numpy_computes_of_the_training_part(seed: int, count: int) -> None:
    parts = {"train": digits(count, seed), "val": digits(7), "test": digits(11)}
    pixels = parts["train"].pixels.numpy() / 255
    assert statistics(parts) == {
        "mean": pytest.approx(np.mean(pixels), abs=1e-6),
        "std": pytest.approx(np.std(pixels), abs=1e-6),
        "images": {"train": count, "val": 7, "test": 11},
        "images_per_class": {
            name: np.bincount(part.labels.numpy(), minlength=10).tolist() for name, part in parts.items()
        },
    }


def test_statistics_count_the_classes_by_hand() -> None:
    labels = torch.tensor([3, 3, 0, 9])
    per_class = statistics({"train": Images(torch.zeros(4, 28, 28, dtype=torch.uint8), labels)})["images_per_class"]
    assert per_class == {"train": [1, 0, 0, 2, 0, 0, 0, 0, 0, 1]}


@given(seed=SEEDS, count=st.integers(1, 50))
def test_normalisation_gives_its_training_part_mean_zero_and_deviation_one(seed: int, count: int) -> None:
    train = digits(count, seed)
    recorded = statistics({"train": train})
    normalisation = Normalisation(float(str(recorded["mean"])), float(str(recorded["std"])))
    inputs = normalisation(intensities(train.pixels)).double()
    assert inputs.shape == (count, 1, 28, 28)
    assert inputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert inputs.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_intensities_run_from_zero_to_one() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    result = intensities(pixels)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, (torch.arange(256) / 255).view(1, 1, 16, 16))
    assert result.min() == 0 and result.max() == 1
    assert pixels.flatten().tolist() == list(range(256))


@given(count=st.integers(1, 100), size=st.integers(1, 120))
def test_batches_cover_everything_in_order(count: int, size: int) -> None:
    images = digits(count)
    batches = list(images.batches(size))
    assert torch.equal(torch.cat([batch.pixels for batch in batches]), images.pixels)
    assert torch.equal(torch.cat([batch.labels for batch in batches]), images.labels)
    assert all(len(batch.labels) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1].labels) <= size


def test_images_are_taken_with_their_labels_in_the_asked_order() -> None:
    images = digits(10)
    taken = images.take(torch.tensor([7, 2, 2]))
    assert torch.equal(taken.pixels, torch.stack([images.pixels[7], images.pixels[2], images.pixels[2]]))
    assert taken.labels.tolist() == [int(images.labels[index]) for index in (7, 2, 2)]


def test_images_come_back_as_they_were_stored(tmp_path: Path) -> None:
    images, path = digits(20), tmp_path / "new folder/train.safetensors"
    save_images(path, images)
    loaded = load_images(path)
    for mine, theirs in zip(images, loaded, strict=True):
        assert torch.equal(mine, theirs)
        assert mine.dtype == theirs.dtype


def test_equal_images_give_equal_bytes(tmp_path: Path) -> None:
    images = digits(20)
    strided = Images(images.pixels.transpose(1, 2).contiguous().transpose(1, 2), images.labels.clone())
    save_images(tmp_path / "a", images)
    save_images(tmp_path / "b", strided)
    save_images(tmp_path / "c", digits(20, seed=1))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize("bytes_left", [None, 0, 4, 60, 1000, -1])
def test_missing_and_damaged_images_are_named(tmp_path: Path, bytes_left: int | None) -> None:
    path = tmp_path / "val.safetensors"
    save_images(path, digits(20))
    content = path.read_bytes()
    path.unlink()
    if bytes_left is not None:
        path.write_bytes(content[:bytes_left])
    with pytest.raises(InputError) as error:
        load_images(path)
    assert str(error.value).startswith(f"{path}: cannot be read")
    assert "'dvc repro split' restores it" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("tensors", [{}, {"pixels": torch.zeros(2, 28, 28)}, {"labels": torch.zeros(2)}])
def test_a_file_of_other_tensors_is_named(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, tmp_path / "val.safetensors")
    with pytest.raises(InputError, match=r"val\.safetensors: cannot be read"):
        load_images(tmp_path / "val.safetensors")


def test_normalisation_is_read_from_the_recorded_statistics(tmp_path: Path) -> None:
    path = tmp_path / "statistics.json"
    path.write_text(json.dumps(statistics({"train": digits(20)})))
    recorded = json.loads(path.read_text())
    assert load_normalisation(path) == Normalisation(recorded["mean"], recorded["std"])


@pytest.mark.parametrize(
    "content", [None, "", '{"mean": 0.13', '{"mean": 0.13}', "[0.13, 0.3]", '{"mean": 0.13, "std": null}']
)
def test_missing_and_damaged_statistics_are_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "statistics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as error:
        load_normalisation(path)
    assert str(error.value).startswith(f"{path}: cannot be read")
    assert len(str(error.value).splitlines()) == 1
