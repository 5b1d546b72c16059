"""Fetch the data set's four files."""

import os
from pathlib import Path

from mnist_cnn.prepare import custom
from mnist_cnn.prepare.download import download
from mnist_cnn.prepare.raw import KNOWN
from mnist_cnn.settings.params import load
from stages import run


def main(params: Path, own: Path, raw: Path) -> None:
    """Fetch the four files of the data set into a folder of their own and check them. Anything else in it is removed.

    Args:
        params: the settings, params.yaml.
        own: the folder with the user's own images.
        raw: written: the folder of the four files, which holds nothing else.
    """
    settings = load(params)

    def say(line: str) -> None:
        print(f"[INFO] {line}", flush=True)

    if settings.data == "custom":
        custom.take(own, raw, len(settings.custom.classes), say)
    else:
        download(raw, os.environ.get("MNIST_MIRROR"), say, KNOWN[settings.data])


if __name__ == "__main__":
    run(main)
