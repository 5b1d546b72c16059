"""Which images are for training and which for validation, and the statistics of the splits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mnist_cnn.common.errors import InputError
from mnist_cnn.data.images import Images, Normalisation, intensities
from mnist_cnn.prepare.split import split_indices, statistics
from tests.helpers import noise

METHODS = ("last", "random", "stratified")
SIZES = st.integers(1, 200)
SEEDS = st.integers(0, 2**32 - 1)


def random_labels(count: int, seed: int = 0) -> Tensor:
    return torch.randint(10, (count,), generator=torch.Generator().manual_seed(seed))


@given(method=st.sampled_from(METHODS), train=SIZES, val=SIZES, spare=st.integers(0, 50), seed=SEEDS)
def test_splits_are_disjoint_of_the_asked_sizes_and_reproducible(
    method: str, train: int, val: int, spare: int, seed: int
) -> None:
    labels = random_labels(train + val + spare, seed)
    random = torch.get_rng_state()
    splits = split_indices(labels, train, val, method, seed)
    assert [len(split) for split in splits] == [train, val]
    assert all(split.dtype == torch.int64 for split in splits)
    chosen = torch.cat(splits)
    assert len(chosen.unique()) == train + val
    assert 0 <= chosen.min() and chosen.max() < len(labels)
    for split, again in zip(splits, split_indices(labels, train, val, method, seed), strict=True):
        assert torch.equal(split, again)
    assert torch.equal(torch.get_rng_state(), random)


@given(train=SIZES, val=SIZES, spare=st.integers(0, 50))
def test_last_takes_the_end_for_validation_and_the_beginning_for_training(train: int, val: int, spare: int) -> None:
    chosen, held_out = split_indices(random_labels(train + val + spare), train, val, "last", 0)
    assert chosen.tolist() == list(range(train))
    assert held_out.tolist() == list(range(train + spare, train + spare + val))


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_random_methods_draw_from_all_and_by_their_seed(method: str) -> None:
    labels = random_labels(1000)
    first, other = (split_indices(labels, 800, 100, method, seed)[1] for seed in (0, 1))
    assert not torch.equal(first, other)
    for held_out in (first, other):
        assert held_out.double().mean() == pytest.approx(500, abs=4 * 29)
        assert held_out.double().std() == pytest.approx(289, rel=0.2)


def worst_deviation(split: Tensor, per_class: Tensor) -> float:
    """By how many images a class of a split is off its overall fraction, at most."""
    labels = torch.arange(10).repeat_interleave(per_class)
    expected = per_class * len(split) / len(labels)
    return float((torch.bincount(labels[split], minlength=10) - expected).abs().max())


@given(per_class=st.lists(st.integers(48, 60), min_size=10, max_size=10), val=st.integers(1, 470), seed=SEEDS)
def test_stratified_keeps_the_fraction_of_each_class_to_within_one_image(
    per_class: list[int], val: int, seed: int
) -> None:
    labels = torch.arange(10).repeat_interleave(torch.tensor(per_class))
    for split in split_indices(labels, len(labels) - val, val, "stratified", seed):
        assert worst_deviation(split, torch.tensor(per_class)) <= 1


def test_stratified_keeps_the_fractions_of_mnist_to_within_one_image() -> None:
    per_class = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    labels = torch.arange(10).repeat_interleave(per_class)
    for val in (10, 5000, 30_001):
        held_out = split_indices(labels, 60_000 - val, val, "stratified", val)[1]
        assert worst_deviation(held_out, per_class) <= 1


@pytest.mark.parametrize("method", METHODS)
def test_more_images_than_there_are_cannot_be_split(method: str) -> None:
    labels = random_labels(100)
    split_indices(labels, 90, 10, method, 0)
    with pytest.raises(InputError, match=r"train 1,090 \+ val 10 .* 100 images"):
        split_indices(labels, 1090, 10, method, 0)
    with pytest.raises(InputError):
        split_indices(labels, 91, 10, method, 0)


@given(seed=SEEDS, count=st.integers(1, 50))
def test_statistics_are_those_numpy_computes_of_the_training_split(seed: int, count: int) -> None:
    splits = {name: noise(size, seed) for name, size in (("train", count), ("val", 7), ("test", 11))}
    splits = {name: Images(images.pixels, random_labels(len(images.labels), seed)) for name, images in splits.items()}
    pixels = splits["train"].pixels.numpy() / 255
    assert statistics(splits) == {
        "mean": pytest.approx(np.mean(pixels), abs=1e-6),
        "std": pytest.approx(np.std(pixels), abs=1e-6),
        "images": {"train": count, "val": 7, "test": 11},
        "images_per_class": {
            name: np.bincount(images.labels.numpy(), minlength=10).tolist() for name, images in splits.items()
        },
    }


def test_statistics_count_the_classes_by_hand() -> None:
    labels = torch.tensor([3, 3, 0, 9])
    per_class = statistics({"train": Images(torch.zeros(4, 28, 28, dtype=torch.uint8), labels)})["images_per_class"]
    assert per_class == {"train": [1, 0, 0, 2, 0, 0, 0, 0, 0, 1]}


@given(seed=SEEDS, count=st.integers(1, 50))
def test_normalisation_gives_its_training_split_mean_zero_and_deviation_one(seed: int, count: int) -> None:
    train = noise(count, seed)
    recorded = statistics({"train": train})
    normalisation = Normalisation(float(str(recorded["mean"])), float(str(recorded["std"])))
    inputs = normalisation(intensities(train.pixels)).double()
    assert inputs.shape == (count, 1, 28, 28)
    assert inputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert inputs.std(correction=0).item() == pytest.approx(1, abs=1e-5)
