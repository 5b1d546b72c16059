"""Divide the images into a training, a validation and a test split."""

from pathlib import Path

import torch

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.mnist import CLASSES
from mnist_cnn.common.sealed import write_sealed
from mnist_cnn.data.images import STATISTICS, Images, save_images
from mnist_cnn.prepare.custom import stored_set
from mnist_cnn.prepare.raw import KNOWN, PARTS, load_raw
from mnist_cnn.prepare.split import split_indices, statistics
from mnist_cnn.settings.params import load
from stages import run


def main(params: Path, raw: Path, splits: Path) -> None:
    """Divide the images into a training, a validation and a test split, deskew all, and record what is in them.

    Args:
        params: the settings, params.yaml.
        raw: the folder with the data set's four files.
        splits: written: the folder with the splits and their statistics.
    """
    settings = load(params)
    split, title = settings.split, settings.data_set.title
    known = stored_set(raw) if settings.data == "custom" else KNOWN[settings.data]
    learn, test = (
        Images(torch.from_numpy(pixels), torch.from_numpy(labels).long())
        for pixels, labels in (load_raw(raw, part, known) for part in PARTS)
    )
    train, val = split_indices(learn.labels, split.train, split.val, split.method, split.seed)
    divided = {"train": learn.take(train), "val": learn.take(val), "test": test}

    recorded = statistics(divided)
    if not recorded["std"]:
        raise InputError(f"{raw}: all pixels of the training images are alike; there is nothing to learn")
    for name, images in divided.items():
        save_images(splits / f"{name}.safetensors", images)
        counts = " ".join(f"{count:,}" for count in images.labels.bincount(minlength=CLASSES).tolist())
        print(f"[INFO] {title}, {name}: {len(images.labels):,} images; of each class: {counts}")
    for name, counts in recorded["images_per_class"].items():
        if absent := [label for label, count in zip(settings.data_set.classes, counts, strict=False) if not count]:
            print(f"[INFO] {name}: there is no image of {', '.join(absent)}")
    if settings.data != "mnist":
        recorded |= {"data": settings.data, "sums": {name: file.md5 for name, file in known.files.items()}}
    write_sealed(splits / STATISTICS, recorded)
    print(f"[INFO] training pixels: mean {recorded['mean']}, standard deviation {recorded['std']}")


if __name__ == "__main__":
    run(main)
