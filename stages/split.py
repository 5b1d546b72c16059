"""Divide MNIST into a training, a validation and a test split."""

from pathlib import Path

import torch

from mnist_cnn.common.mnist import CLASSES
from mnist_cnn.common.sealed import write_sealed
from mnist_cnn.data.images import STATISTICS, Images, save_images
from mnist_cnn.prepare.raw import load_raw
from mnist_cnn.prepare.split import split_indices, statistics
from mnist_cnn.settings.params import load
from stages import run


def main(params: Path, raw: Path, splits: Path) -> None:
    """Divide MNIST into a training, a validation and a test split, deskew all, and record what is in them.

    Args:
        params: the settings, params.yaml.
        raw: the folder with MNIST's four files.
        splits: written: the folder with the splits and their statistics.
    """
    settings = load(params).split
    learn, test = (
        Images(torch.from_numpy(pixels), torch.from_numpy(labels).long())
        for pixels, labels in (load_raw(raw, part) for part in ("train", "t10k"))
    )
    train, val = split_indices(learn.labels, settings.train, settings.val, settings.method, settings.seed)
    divided = {"train": learn.take(train), "val": learn.take(val), "test": test}

    for name, images in divided.items():
        save_images(splits / f"{name}.safetensors", images)
        counts = " ".join(f"{count:,}" for count in images.labels.bincount(minlength=CLASSES).tolist())
        print(f"[INFO] {name}: {len(images.labels):,} images; of the digits 0 to 9: {counts}")
    recorded = statistics(divided)
    write_sealed(splits / STATISTICS, recorded)
    print(f"[INFO] training pixels: mean {recorded['mean']}, standard deviation {recorded['std']}")


if __name__ == "__main__":
    run(main)
