"""Real digits as they would be in other people's pictures, and how many a trained model still takes for the same.

``python -m tests.distorted --images 1000`` prints the table of docs/models.md, after ``make repro``.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from mnist_cnn import as_digit, load_model
from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from mnist_cnn.data.images import load_images
from tests.helpers import ROOT

Bytes = NDArray[np.uint8]
Levels = NDArray[np.floating]
Random = np.random.Generator

PAPER, INK = np.array([0.95, 0.9, 0.6]), np.array([0.15, 0.2, 0.6])


def real_digits() -> Bytes:
    """Ten of each class, in order, of MNIST's validation images: ``(100, 28, 28)``."""
    sheet = np.asarray(Image.open(ROOT / "tests/unit/golden/digits.png"))
    return sheet.reshape(10, 28, 10, 28).swapaxes(1, 2).reshape(100, 28, 28)


def as_bytes(levels: Levels) -> Bytes:
    return np.round(levels.clip(0, 1) * 255).astype(np.uint8)


def enlarged(digit: Bytes, times: float) -> Levels:
    """Ink from 0 to 1."""
    side = round(28 * times)
    resized = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float64) / 255


def black(digit: Bytes, times: int = 10) -> NDArray[np.bool_]:
    """Ink or none, as a scanner sees it."""
    mask: NDArray[np.bool_] = enlarged(digit, times) > 0.5
    return mask


def somewhere(digit: Bytes, random: Random, height: int = 600, width: int = 800) -> Levels:
    """Ink on a large sheet."""
    ink, sheet = enlarged(digit, random.uniform(4, 8)), np.zeros((height, width))
    y, x = random.integers(0, height - len(ink)), random.integers(0, width - len(ink))
    sheet[y : y + len(ink), x : x + len(ink)] = ink
    return sheet


def cropped(digit: Bytes) -> Bytes:
    rows, columns = (np.flatnonzero(digit.any(axis)) for axis in (1, 0))
    return digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def light(shape: tuple[int, ...], random: Random) -> Levels:
    """Falls off to a third from one side to the other."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    angle = random.uniform(0, 2 * np.pi)
    levels: Levels = 0.6 + 0.3 * (np.cos(angle) * y + np.sin(angle) * x) / np.sqrt(2)
    return levels


def vignette(shape: tuple[int, ...]) -> Levels:
    """Falls off to the corners."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    return 0.9 - 0.25 * (y**2 + x**2)


def shadow(shape: tuple[int, ...], random: Random) -> Levels:
    """Of something with a straight edge, a little unsharp, through the picture."""
    y, x = np.meshgrid(*(np.arange(side) - side / 2 for side in shape), indexing="ij")
    angle, place = random.uniform(0, 2 * np.pi), random.uniform(-0.3, 0.3) * min(shape)
    levels: Levels = 1 - 0.4 * ((np.cos(angle) * y + np.sin(angle) * x - place) / 5).clip(0, 1)
    return levels


def thin(digit: Bytes) -> NDArray[np.bool_]:
    """About a third of each stroke's width, as with a fine pen."""
    ink = black(digit)
    inside = ndimage.distance_transform_edt(ink)
    mask: NDArray[np.bool_] = ink & (inside > 0.65 * ndimage.maximum_filter(inside, 31))
    return mask


def jpeg(picture: Bytes, quality: int) -> Bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def blurred(picture: Bytes, radius: float) -> Bytes:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def coloured(ink: Levels) -> Levels:
    levels: Levels = PAPER + (INK - PAPER) * ink[..., None]
    return levels


def transparent(ink: Levels) -> Levels:
    """White on nothing, whose colour is white, too."""
    return np.concatenate([np.ones((*ink.shape, 3)), ink[..., None]], axis=2)


def peppered(picture: Levels, random: Random) -> Levels:
    return np.where(random.random(picture.shape) < 0.002, random.integers(0, 2, picture.shape), picture)


def photo(digit: Bytes, random: Random) -> Bytes:
    ink = somewhere(digit, random)
    picture = coloured(ink) * light(ink.shape, random)[..., None] + random.normal(0, 0.02, (*ink.shape, 3))
    return jpeg(blurred(as_bytes(picture), 1.5), 70)


DISTORTED: dict[str, Callable[[Bytes, Random], Bytes]] = {
    "as it is": lambda digit, _: digit,
    "inverted": lambda digit, _: 255 - digit,
    "half as large": lambda digit, _: as_bytes(1 - enlarged(digit, 0.5)),
    "5 times as large": lambda digit, _: as_bytes(enlarged(digit, 5)),
    "5 times as large, blurred": lambda digit, _: blurred(as_bytes(1 - enlarged(digit, 5)), 3),
    "10 times as large, black and white": lambda digit, _: as_bytes(1.0 - black(digit)),
    "5 times as large, cropped to its ink": lambda digit, _: 255 - cropped(digit).repeat(5, 0).repeat(5, 1),
    "somewhere on a large sheet": lambda digit, random: as_bytes(1 - somewhere(digit, random)),
    "light from one side": lambda digit, random: as_bytes((1 - 0.8 * enlarged(digit, 5)) * light((140, 140), random)),
    "dark corners": lambda digit, _: as_bytes((1 - 0.8 * enlarged(digit, 5)) * vignette((140, 140))),
    "the edge of a shadow": lambda digit, random: as_bytes(
        (1 - 0.8 * somewhere(digit, random)) * shadow((600, 800), random)
    ),
    "noise": lambda digit, random: as_bytes(0.8 - 0.6 * enlarged(digit, 5) + random.normal(0, 0.1, (140, 140))),
    "dirt": lambda digit, random: as_bytes(peppered(1 - enlarged(digit, 5), random)),
    "little contrast": lambda digit, _: as_bytes(0.6 - 0.1 * enlarged(digit, 5)),
    "blue on yellow": lambda digit, _: as_bytes(coloured(enlarged(digit, 5))),
    "white on transparent": lambda digit, _: as_bytes(transparent(enlarged(digit, 5))),
    "JPEG of quality 30": lambda digit, _: jpeg(as_bytes(1 - enlarged(digit, 5)), 30),
    "fine pen": lambda digit, _: as_bytes(1.0 - thin(digit)),
    "photo: sheet, colours, light, noise, blur, JPEG": photo,
}


def main(images: int) -> None:
    """Print, for each kind of picture, how many digits get the same prediction as undistorted.

    Args:
        images: how many validation digits, from the end of the split.
    """
    classify = load_model(folder=ROOT)
    # The last ones: the first guided how pictures are made into digits.
    digits = load_images(ROOT / "data/split/val.safetensors").pixels.numpy()[-images:]
    expected = classify(digits).argmax(1)
    print(f"| {classify.name}, {len(digits):,} validation digits | Same prediction, % |\n| --- | ---: |")
    for name, distort in DISTORTED.items():
        random = np.random.default_rng(0)
        made = [_digit(distort(digit, random)) for digit in digits]
        print(f"| {name} | {100 * (classify(np.stack(made)).argmax(1) == expected).mean():.1f} |", flush=True)


def _digit(picture: Bytes) -> Bytes:
    try:
        return as_digit(picture)
    except InputError:  # counts as wrong, but for the digit that a blank image is taken for
        return np.zeros((28, 28), np.uint8)


if __name__ == "__main__":
    cli.run(main)
