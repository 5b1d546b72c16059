"""Which images are for training, which for validation, and what is in them."""

from typing import Any

import torch
from torch import Tensor

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.mnist import CLASSES
from mnist_cnn.data.images import Images


def split_indices(labels: Tensor, train: int, val: int, method: str, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the validation split, int64 ``(train,)`` and ``(val,)``, disjoint.

    ``last``: validation is the end of the file and training its beginning. The file is ordered by writer,
    so most writers of the validation split are new to the network, as those of the test set are.
    ``random``: drawn from all; writers are shared, which makes validation look too good.
    ``stratified``: random, with each class having the same fraction of both splits (to within one image,
    where no class holds more than an eighth of all).

    Raises:
        InputError: there are fewer than ``train + val`` images.
    """
    count = len(labels)
    if train + val > count:
        raise InputError(f"split: train {train:,} + val {val:,} is more than the {count:,} images there are")
    if method == "last":
        return torch.arange(train), torch.arange(count - val, count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    if method == "stratified":
        order = order[_interleave_classes(labels[order])]
    return order[val : val + train].sort().values, order[:val].sort().values


def _interleave_classes(labels: Tensor) -> Tensor:
    """An order in which every prefix holds each class in its overall proportion, to within one image."""
    position = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        position[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return position.argsort(stable=True)


def statistics(splits: dict[str, Images]) -> dict[str, Any]:
    """Sizes and class counts of all splits; mean and standard deviation of ``train``'s pixels, on the scale 0 to 1."""
    pixels = splits["train"].pixels.double() / 255
    return {
        "mean": round(pixels.mean().item(), 6),
        "std": round(pixels.std(correction=0).item(), 6),
        "images": {name: len(images.labels) for name, images in splits.items()},
        "images_per_class": {
            name: torch.bincount(images.labels, minlength=CLASSES).tolist() for name, images in splits.items()
        },
    }
