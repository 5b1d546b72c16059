"""Labelled images, and the splits that the stage ``split`` has written."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.sealed import read_sealed
from mnist_cnn.data.deskew import deskew
from mnist_cnn.data.tensors import load_tensors, save_tensors

STATISTICS = "statistics.json"
_RESTORED_BY = "'dvc checkout' or 'dvc repro split'"


class Images(NamedTuple):
    """Labelled images: ``pixels`` uint8 ``(N, 28, 28)``, 0 is background; ``labels`` int64 ``(N,)``, 0 to 9."""

    pixels: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Images":
        """The same images on a device."""
        return Images(self.pixels.to(device), self.labels.to(device))

    def take(self, indices: Tensor) -> "Images":
        """The images at ``indices``, int64 ``(M,)``, in that order."""
        return Images(self.pixels[indices], self.labels[indices])

    def first(self, count: int) -> "Images":
        """The first ``count`` images, or all if there are fewer."""
        return Images(self.pixels[:count], self.labels[:count])

    def batches(self, size: int) -> Iterator["Images"]:
        """All images in order, ``size`` at a time; the last batch may be smaller."""
        for start in range(0, len(self.labels), size):
            yield Images(self.pixels[start : start + size], self.labels[start : start + size])


class Normalisation(NamedTuple):
    """Mean and standard deviation of the training split's pixels, on the scale 0 to 1."""

    mean: float
    std: float

    def __call__(self, intensities: Tensor) -> Tensor:
        """Normalised network input, ``(N, 1, 28, 28)``, from intensities in [0, 1] of the same shape."""
        return (intensities - self.mean) / self.std


class Splits(NamedTuple):
    """Images by the name of their split (``train``, ``val``, ``test``), and how networks get them normalised."""

    images: dict[str, Images]
    normalisation: Normalisation

    @property
    def train(self) -> Images:
        """The images to train on."""
        return self.images["train"]

    @property
    def val(self) -> Images:
        """The images that guide every choice."""
        return self.images["val"]

    @property
    def test(self) -> Images:
        """The images that guide none."""
        return self.images["test"]


def intensities(pixels: Tensor) -> Tensor:
    """``(N, 28, 28)`` uint8 pixels as ``(N, 1, 28, 28)`` float32 in [0, 1]."""
    return pixels.unsqueeze(1).float().div_(255)


def save_images(path: Path, images: Images) -> None:
    """Store a split: pixels, the same deskewed, and labels as uint8."""
    labels = images.labels.to(torch.uint8)
    save_tensors(path, {"pixels": images.pixels, "deskewed": deskew(images.pixels), "labels": labels})


def load_images(path: Path, deskewed: bool = False) -> Images:
    """A split as ``save_images`` stored it, as written or deskewed.

    Raises:
        InputError: the file is missing or damaged.
    """
    pixels = "deskewed" if deskewed else "pixels"
    tensors = load_tensors(path, (pixels, "labels"), restored_by=_RESTORED_BY)
    return Images(tensors[pixels], tensors["labels"].long())


def load_splits(folder: Path, names: Collection[str], deskewed: bool) -> Splits:
    """The named splits of a folder, as written or deskewed. Raises InputError where a file is missing or damaged."""
    images = {name: load_images(folder / f"{name}.safetensors", deskewed) for name in names}
    return Splits(images, load_normalisation(folder / STATISTICS))


def load_normalisation(path: Path) -> Normalisation:
    """Mean and standard deviation from the statistics that the split recorded. Raises InputError when damaged."""
    recorded = read_sealed(path, _RESTORED_BY)
    try:
        return Normalisation(float(recorded["mean"]), float(recorded["std"]))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: has no mean and standard deviation ({error}); {_RESTORED_BY} restores it") from None
