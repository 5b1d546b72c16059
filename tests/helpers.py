"""What several tests need: small images, recipes, a server on the loopback."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import torch

from mnist_cnn.data.images import Images, Normalisation, Splits
from mnist_cnn.engine.execution import ExecutionConfig
from mnist_cnn.settings.datasets import PUBLISHED
from mnist_cnn.settings.params import Augmentation, Recipe

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
TORCH, NATIVE = ExecutionConfig(CPU, "torch"), ExecutionConfig(CPU, "native")
NORMALISATION = Normalisation(0.5, 0.3)
MNIST = PUBLISHED["mnist"]

NO_AUGMENTATION = Augmentation(rotation_deg=0, shift_px=0, scale_percent=0)
AUGMENTATION = Augmentation(rotation_deg=10, shift_px=2, scale_percent=10)
RECIPE = Recipe(
    epochs=1,
    batch_size=32,
    schedule="constant",
    max_lr=0.05,
    warmup_fraction=0,
    momentum=0.9,
    weight_decay=0.0001,
    adaptive_clipping=0.0,
    ema_decay=0.0,
    dropout=0.0,
    label_smoothing=0.0,
    deskew=False,
    tta=False,
    augmentation=NO_AUGMENTATION,
)


def noise(count: int, seed: int = 0) -> Images:
    """Images of noise, labelled 0 to 9 in turn."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % 10)


def squares(count: int, seed: int = 0) -> Images:
    """Images that can be learned: a bright square, whose place tells the class, on dim noise."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(60, (count, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 10
    for image, label in zip(pixels, labels.tolist(), strict=True):
        row, column = 4 + 12 * (label // 5), 2 + 5 * (label % 5)
        image[row : row + 6, column : column + 5] = 255
    return Images(pixels, labels)


def bar(lean: float) -> torch.Tensor:
    """A soft bar through the middle, uint8 ``(1, 28, 28)``, that leans right by ``lean`` with each row further down."""
    y, x = (axis - 13.5 for axis in torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij"))
    ink = torch.exp(-((x - lean * y) ** 2) / 4 - (y / 6) ** 4)
    return (ink * 255).round().to(torch.uint8).unsqueeze(0)


def splits_of(train: Images, val: Images, test: Images | None = None) -> Splits:
    """Images as splits, normalised as all here."""
    return Splits({"train": train, "val": val} | ({} if test is None else {"test": test}), NORMALISATION)


def idx(array: np.ndarray) -> bytes:
    """A uint8 array in MNIST's file format."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on the loopback, as long as the block lasts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
