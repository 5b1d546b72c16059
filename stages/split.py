"""Divide MNIST into training, validation and test part."""

import json
from pathlib import Path

from torchvision.datasets import MNIST

from mnist_cnn.data import Images, save_images, split_indices, statistics
from mnist_cnn.files import write_text
from mnist_cnn.params import load
from stages import cli


def main(params: Path, raw: Path, parts: Path) -> None:
    """Divide MNIST into training, validation and test part, and record what is in them."""
    settings = load(params).split
    learn, test = (MNIST(str(raw), train=train, download=False) for train in (True, False))
    images = Images(learn.data, learn.targets)
    train, val = split_indices(images.labels, settings.train, settings.val, settings.method, settings.seed)
    split = {"train": images.take(train), "val": images.take(val), "test": Images(test.data, test.targets)}

    for name, part in split.items():
        save_images(parts / f"{name}.safetensors", part)
        counts = " ".join(f"{count:,}" for count in part.labels.bincount(minlength=10).tolist())
        print(f"[INFO] {name}: {len(part.labels):,} images; of the digits 0 to 9: {counts}")
    recorded = statistics(split)
    write_text(parts / "statistics.json", json.dumps(recorded, indent=2, allow_nan=False) + "\n")
    print(f"[INFO] training pixels: mean {recorded['mean']}, deviation {recorded['std']}")


if __name__ == "__main__":
    cli.run(main)
