"""Fetch the four MNIST files."""

import os
from pathlib import Path

from mnist_cnn.prepare.download import download
from stages import run


def main(raw: Path) -> None:
    """Fetch the four MNIST files into a folder of their own and check them. Anything else in it is removed.

    Args:
        raw: written: the folder of the four files, which holds nothing else.
    """
    download(raw, mirror=os.environ.get("MNIST_MIRROR"), say=lambda line: print(f"[INFO] {line}", flush=True))


if __name__ == "__main__":
    run(main)
