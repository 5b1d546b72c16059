"""Pictures of a digit, made into what MNIST has.

MNIST's digits were black ink on white, scanned. They were scaled, with their ratio kept, to fit a box of 20 by 20
pixels, which made them grey by anti-aliasing, and put into images of 28 by 28 with their centre of mass in the middle.
Ink is light there, on dark ground. Here the same is done with pictures that are less tidy than those scans.

Source: "The MNIST database of handwritten digits", LeCun, Cortes, Burges, 1998, http://yann.lecun.com/exdb/mnist/
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mnist_cnn.common.errors import InputError, about
from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.inference.pictures import SIDE, box_of, frame, grey, read_picture, shown

_Grey = NDArray[np.floating]
_Mask = NDArray[np.bool_]

# The longer side of a digit. Two of the 5,000 validation digits have 19: a row of theirs lies outside.
BOX_SIDE = 20
# Index of the pixel in which MNIST's digits have their centre of mass: it lies within half a pixel of that.
_CENTRE = IMAGE_SIDE // 2

# Ink differs from its paper by more than that, on a scale from 0 to 1, and than so many standard deviations of noise.
_LEAST_CONTRAST, _SURELY_NOT_NOISE, _HARDLY_NOISE = 0.02, 5.0, 4.0
# A stroke has, somewhere, half the contrast of the darkest ink, and everywhere a fifth.
_STRONG, _WEAK = 0.5, 0.2
# Parts with less ink than this fraction of the largest part's are dirt.
_LEAST_PART = 0.03
# What is shorter than three pixels, or a fiftieth of the picture, is no digit.
_LEAST_PIXELS, _LEAST_OF_SIDE = 3, 1 / 50
# MNIST's strokes are 2.9 pixels wide in the median and 1.5 at least. Thinner ones than this, of a pen on a large sheet,
# would nearly vanish in the box, and are widened.
_LEAST_STROKE = 2.5
# Ink on more of the border than this may be a shadow.
_MUCH_OF_BORDER = 0.1
# If it is a shadow, there is so much of what looks like ink apart from the border, as a fraction of all that does.
_ENOUGH_INSIDE = 0.1
# Strokes are narrower than this fraction of the picture's longer side.
_WINDOW = 1 / 4
# A box of so many pixels is large enough to measure and to widen strokes.
_MEASURED_SIDE = 200
# To estimate the paper, a sample of its pixels will do.
_SAMPLE = 2000


def read_digit(path: Path | str) -> NDArray[np.uint8]:
    """The digit in an image file, as MNIST would have it: see ``as_digit``.

    Raises:
        InputError: the file is missing or no image, or shows nothing that could be a digit.
    """
    with about(shown(path)):
        return as_digit(read_picture(Path(path)))


def as_digit(picture: NDArray) -> NDArray[np.uint8]:
    """The digit in a picture as MNIST would have it: uint8 ``(28, 28)``, light on dark.

    What is already in MNIST's form, light on dark or inverted, comes back as it is. Otherwise the border is paper, and
    what differs from it is ink, whichever of the two is lighter. Light that falls off across the paper, noise and small
    dirt are left out, and strokes that are too thin for MNIST are widened.

    Args:
        picture: of one digit with some paper around it. ``(H, W)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGB and opacity;
            bool, uint8, uint16, or a float type from 0.0 to 1.0.

    Raises:
        InputError: it has another dtype or shape, is out of range, or has no ink.
    """
    levels = grey(picture)
    pixels = _as_bytes(levels)
    for candidate in (pixels, 255 - pixels):
        if _is_in_mnists_form(candidate):
            return candidate
    reduced = np.asarray(Image.fromarray(levels.astype(np.float32)).reduce(max(1, max(levels.shape) // SIDE)))
    return _centred(_scaled(_with_wide_strokes(_ink(reduced.astype(np.float64)))))


def _is_in_mnists_form(pixels: NDArray[np.uint8]) -> bool:
    """Whether a picture is a digit of MNIST, or could be one: its size, its box, and its centre of mass are right."""
    if pixels.shape != (IMAGE_SIDE, IMAGE_SIDE) or not pixels.any():
        return False
    off_centre = np.abs(np.subtract(ndimage.center_of_mass(pixels), _CENTRE)).max()
    return max(pixels[box_of(pixels > 0)].shape) in (BOX_SIDE - 1, BOX_SIDE) and off_centre <= 0.5


def _as_bytes(levels: _Grey) -> NDArray[np.uint8]:
    return np.round(levels * 255).astype(np.uint8)


# ---- Ink and paper


class _Paper(NamedTuple):
    """What the ground of a picture would look like without ink: a polynomial of two variables, and its noise.

    ``factors`` are those of the products of powers of row and column, both from -1 to 1, that ``powers`` has; ``noise``
    is a standard deviation.
    """

    factors: _Grey
    powers: list[tuple[int, int]]
    noise: float

    def levels(self, shape: tuple[int, ...]) -> _Grey:
        """The paper of a picture of a shape ``(H, W)``."""
        rows, columns = _positions(shape)
        terms = (
            f * rows[:, None] ** i * columns[None] ** j for f, (i, j) in zip(self.factors, self.powers, strict=True)
        )
        return np.broadcast_to(sum(terms), shape)


def _positions(shape: tuple[int, ...]) -> list[_Grey]:
    return [np.linspace(-1, 1, side) for side in shape]


def _ink(levels: _Grey) -> _Grey:
    """The ink of a picture, ``(H, W)`` from 0.0 (none) to 1.0. Raises InputError where there is none.

    If much of the border seems to be ink, but not on all four sides, or nothing at all does, there may be shadows with
    edges. Then what is darker than its neighbourhood is ink, but for what is at the border, if that leaves enough.
    """
    border = frame(levels.shape)
    ink = _large_parts(_strokes(*_contrast_in_even_light(levels, border)))
    is_cropped_close = all(side.any() for side in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))
    if not ink.any() or ((ink[border] > 0).mean() > _MUCH_OF_BORDER and not is_cropped_close):
        dark = _strokes(*_contrast_of_dark_strokes(levels))
        inside = _without_parts_on(border, dark)
        ink = _large_parts(inside) if inside.sum() > _ENOUGH_INSIDE * dark.sum() else ink
    if not ink.any():
        raise InputError("has no ink: nothing in it differs from its border")
    if max(ink[box_of(ink > 0)].shape) < max(_LEAST_PIXELS, _LEAST_OF_SIDE * max(levels.shape)):
        raise InputError("has no ink: only specks")
    return ink


def _contrast_in_even_light(levels: _Grey, border: _Mask) -> tuple[_Grey, float]:
    """By how much each pixel differs from paper, and the deviation of noise in that.

    The paper is estimated at the border, and again everywhere outside of what that shows to be ink.
    """
    paper = _paper(levels, border)
    is_light = ((levels - paper.levels(levels.shape)) ** 3).sum() > 0
    contrast, noise = _contrast(levels, paper, is_light)
    rest = ~ndimage.binary_dilation(_strokes(contrast, noise) > 0, iterations=2)
    return _contrast(levels, _paper(levels, rest), is_light) if rest.mean() > 1 / 5 else (contrast, noise)


def _strokes(contrast: _Grey, noise: float) -> _Grey:
    """The ink in what differs from paper, from 0.0 to 1.0; all 0.0 where nothing is above the noise.

    Pixels are ink that are so by hysteresis: all of a stroke that is strong somewhere.

    Source: "A Computational Approach to Edge Detection", Canny, 1986, https://doi.org/10.1109/TPAMI.1986.4767851
    """
    above = contrast[contrast > max(_SURELY_NOT_NOISE * noise, _LEAST_CONTRAST)]
    if not len(above):
        return np.zeros_like(contrast)
    # The contrast of the darkest ink, but for some outliers.
    full = float(np.percentile(above, 90))
    strong = contrast > max(_SURELY_NOT_NOISE * noise, _STRONG * full)
    parts = _parts(contrast > max(_HARDLY_NOISE * noise, _WEAK * full))
    is_stroke = np.bincount(parts.ravel(), strong.ravel()) > 0
    return np.where(is_stroke[parts] & (parts > 0), (contrast / full).clip(0, 1), 0)


def _parts(mask: _Mask) -> NDArray[np.intp]:
    """The connected parts of a mask, numbered from 1, diagonal neighbours included; 0 elsewhere."""
    parts: NDArray[np.intp] = ndimage.label(mask, np.ones((3, 3)))[0]
    return parts


def _large_parts(ink: _Grey) -> _Grey:
    """Ink without dirt: without parts that have too little of it."""
    parts = _parts(ink > 0)
    amounts = np.bincount(parts.ravel(), ink.ravel())
    return np.where((amounts >= _LEAST_PART * amounts.max())[parts], ink, 0)


def _without_parts_on(border: _Mask, ink: _Grey) -> _Grey:
    parts = _parts(ink > 0)
    is_on_border = np.bincount(parts.ravel(), border.ravel()) > 0
    return np.where(is_on_border[parts], 0, ink)


def _contrast_of_dark_strokes(levels: _Grey) -> tuple[_Grey, float]:
    """By how much each pixel is darker than paper in its neighbourhood, and the deviation of noise in that.

    Paper is what closing leaves: what is darker and narrower than the window vanishes, and the edge of a shadow stays.
    """
    ground = ndimage.grey_closing(levels, max(3, round(_WINDOW * max(levels.shape))), mode="nearest")
    contrast = (ground - levels) / ground.clip(0.05)
    # Noise makes closing too light.
    contrast = contrast - np.median(contrast)
    return contrast, _deviation(np.abs(contrast))


def _paper(levels: _Grey, where: _Mask) -> _Paper:
    """Paper under even light, or light that changes evenly: the polynomial of least degree, up to 2, that fits.

    What is far off, such as ink that reaches the border, does not count.

    Args:
        where: pixels of which most are paper.
    """
    y, x = np.nonzero(where)
    if len(y) > _SAMPLE:
        # Always the same ones; at equal distances they might all lie in a column.
        chosen = np.random.default_rng(0).choice(len(y), _SAMPLE, replace=False)
        y, x = y[chosen], x[chosen]
    rows, columns = _positions(levels.shape)
    fits = [_fit(levels[y, x], rows[y], columns[x], degree) for degree in (0, 1, 2)]
    least = min(paper.noise for paper in fits)
    return next(paper for paper in fits if paper.noise <= 1.3 * least + 1 / 255)


def _fit(values: _Grey, rows: _Grey, columns: _Grey, degree: int) -> _Paper:
    """The polynomial of a degree through values at positions, by least squares without what is far off."""
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    terms = np.stack([rows**i * columns**j for i, j in powers], axis=1)
    factors = np.median(values, keepdims=True)
    off = np.abs(values - factors)
    for _ in range(4 if degree else 0):
        near = off <= max(2.5 * _deviation(off), 1 / 255)
        factors = np.linalg.lstsq(terms[near], values[near], rcond=None)[0]
        off = np.abs(values - terms @ factors)
    return _Paper(factors, powers, _deviation(off))


def _deviation(distances: _Grey) -> float:
    """The standard deviation of normal noise, from its absolute values; a few that are far off change nothing."""
    return 1.4826 * float(np.median(distances))


def _contrast(levels: _Grey, paper: _Paper, is_light: bool) -> tuple[_Grey, float]:
    """By how much each pixel is lighter than paper, or darker, and the deviation of noise in that.

    Dark ink takes away a fraction of whatever light the paper has.
    """
    ground = paper.levels(levels.shape)
    if is_light:
        return levels - ground, paper.noise
    light = ground.clip(0.05)
    return (ground - levels) / light, paper.noise / float(np.median(light))


# ---- Into the box


def _with_wide_strokes(ink: _Grey) -> _Grey:
    """The box of ink, its strokes not thinner than ``_LEAST_STROKE`` where the box is scaled to ``BOX_SIDE``.

    In a stroke of even width, the mean distance to its edge is a quarter of that.
    """
    ink = ink[box_of(ink > 0)]
    scale = max(1, _MEASURED_SIDE / max(ink.shape))
    large = np.pad(_resized(ink, scale, Image.Resampling.BILINEAR), 1)
    solid = large > _STRONG * large.max()
    pixel = max(large.shape) / BOX_SIDE
    width = 4 * ndimage.distance_transform_edt(solid)[solid].mean() / pixel
    if width >= _LEAST_STROKE:
        return ink
    more = (_LEAST_STROKE - width) / 2 * pixel
    outside = ndimage.distance_transform_edt(~np.pad(solid, int(more) + 2))
    wide: _Grey = (more + 0.5 - outside).clip(0, 1)
    return wide[box_of(wide > 0)]


def _scaled(ink: _Grey) -> _Grey:
    """A box of ink, its longer side ``BOX_SIDE``, by the mean of what each pixel covers; the most ink is 1.0."""
    small = _resized(ink, BOX_SIDE / max(ink.shape), Image.Resampling.BOX)
    most: float = small.max()
    return small / most


def _resized(ink: _Grey, scale: float, how: Image.Resampling) -> _Grey:
    height, width = (max(1, round(scale * side)) for side in ink.shape)
    return np.asarray(Image.fromarray(ink.astype(np.float32)).resize((width, height), how), dtype=np.float64)


def _centred(box: _Grey) -> NDArray[np.uint8]:
    """A digit in the middle of an image by its centre of mass, to the next pixel; all of the box is kept."""
    image = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    top, left = (
        min(max(round(_CENTRE - centre), 0), IMAGE_SIDE - side)
        for centre, side in zip(ndimage.center_of_mass(box), box.shape, strict=True)
    )
    image[top : top + box.shape[0], left : left + box.shape[1]] = _as_bytes(box)
    return image
