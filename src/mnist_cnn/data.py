"""MNIST as tensors: the split into parts, their storage, normalisation."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mnist_cnn.errors import InputError
from mnist_cnn.files import whole_file

CLASSES = 10


class Images(NamedTuple):
    """Labelled images: ``pixels`` uint8 ``(N, 28, 28)``, 0 is background; ``labels`` int64 ``(N,)``, 0 to 9.

    Pixels of several views of each image are ``(N, views, 28, 28)``.
    """

    pixels: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Images":
        """The same images on a device."""
        return Images(self.pixels.to(device), self.labels.to(device))

    def take(self, indices: Tensor) -> "Images":
        """The images at ``indices``, int64 ``(M,)``, in that order."""
        return Images(self.pixels[indices], self.labels[indices])

    def batches(self, size: int) -> Iterator["Images"]:
        """All images in order, ``size`` at a time; the last batch may be smaller."""
        for start in range(0, len(self.labels), size):
            yield Images(self.pixels[start : start + size], self.labels[start : start + size])


class Normalisation(NamedTuple):
    """Mean and standard deviation of the training part's pixels, on the scale 0 to 1."""

    mean: float
    std: float

    def __call__(self, intensities: Tensor) -> Tensor:
        """Normalised network input, ``(N, 1, 28, 28)``, from intensities in [0, 1] of the same shape."""
        return (intensities - self.mean) / self.std


def intensities(pixels: Tensor) -> Tensor:
    """``(N, 28, 28)`` uint8 pixels as ``(N, 1, 28, 28)`` float32 in [0, 1]."""
    return pixels.unsqueeze(1).float().div_(255)


def split_indices(labels: Tensor, train: int, val: int, method: str, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the validation part, int64 ``(train,)`` and ``(val,)``, disjoint.

    ``last``: validation is the end of the file and training its beginning. The file is ordered by writer,
    so most writers of the validation part are new to the network, as those of the test set are.
    ``random``: drawn from all; writers are shared, which makes validation look too good.
    ``stratified``: random, with each class having the same share in both parts (to within one image,
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


def statistics(parts: dict[str, Images]) -> dict[str, object]:
    """Sizes and per-class counts of all parts; mean and deviation of the part called ``train``."""
    pixels = parts["train"].pixels.double() / 255
    return {
        "mean": round(pixels.mean().item(), 6),
        "std": round(pixels.std(correction=0).item(), 6),
        "images": {name: len(part.labels) for name, part in parts.items()},
        "images_per_class": {
            name: torch.bincount(part.labels, minlength=CLASSES).tolist() for name, part in parts.items()
        },
    }


def save_images(path: Path, images: Images) -> None:
    """Store a part as safetensors, labels as uint8."""
    with whole_file(path) as scratch:
        save_file({"pixels": images.pixels.contiguous(), "labels": images.labels.to(torch.uint8)}, scratch)


def load_images(path: Path) -> Images:
    """A part as ``save_images`` stored it. Raises InputError when the file is missing or damaged."""
    try:
        tensors = load_file(path)
        return Images(tensors["pixels"], tensors["labels"].long())
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({error}); 'dvc checkout' or 'dvc repro split' restores it") from None


def load_normalisation(path: Path) -> Normalisation:
    """Mean and deviation from the statistics that the split recorded. Raises InputError when damaged."""
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        return Normalisation(float(recorded["mean"]), float(recorded["std"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); 'dvc checkout' or 'dvc repro split' restores it") from None
