"""Pictures in files and arrays, made into grey ones: which pixels are lighter or darker than others, and no more."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist_cnn.common.errors import InputError

# What is read, as Pillow names it. Not all that it could: to read PostScript, it would start an interpreter of that.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# Grey levels in more than 8 bits, which Pillow would cut off.
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
# Pictures have longer sides of no more than twice that many pixels here: a digit is to have 20.
SIDE = 500
# Colours that differ by less than that, on a scale from 0 to 1, are one.
_SAME_COLOUR = 0.1


def suffixes() -> set[str]:
    """What the names of files in such formats end with, each with its dot, in small letters."""
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}


def shown(name: str | Path) -> str:
    """A name as a message may have it: control characters, which steer terminals, and line breaks as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(name))


def read_picture(path: Path) -> NDArray:
    """The pixels of an image file, turned as its EXIF data say; of an animation, the first frame.

    Returns ``(H, W)``, ``(H, W, 3)`` or, with transparency, ``(H, W, 4)``: uint8, or what ``grey`` takes beside. Large
    pictures are reduced.

    Raises:
        InputError: there is no such file; it is empty, damaged, too large, or no image of ``FORMATS``.
    """
    _check_has_content(path)
    try:
        with warnings.catch_warnings():
            # Of odd EXIF data and the like: the picture is there all the same.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                # JPEG can leave out what would be averaged away.
                image.draft(image.mode, (SIDE, SIDE))
                return _pixels(_upright(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"is too large: at most {Image.MAX_IMAGE_PIXELS or 0:,} pixels are allowed") from None
    except UnidentifiedImageError:
        raise InputError(f"is no image, or of a format that is not read; allowed: {', '.join(FORMATS)}") from None
    except MemoryError:
        raise InputError("is too large for this machine's memory") from None
    # A damaged file makes each of Pillow's decoders fail in ways of its own.
    except Exception as error:
        fault = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"is damaged ({shown(fault)})") from None


def _check_has_content(path: Path) -> None:
    """Raises InputError where there is no such file, or it is empty or may not be read."""
    try:
        if not path.is_file():
            raise InputError("is neither a file nor a folder" if path.exists() else "there is no such file or folder")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError("is empty")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from None


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data say; as it is, where they are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError):
        return image


def _pixels(image: Image.Image) -> NDArray:
    if image.mode in _DEEP_MODES:
        levels = np.asarray(image)
        return levels if levels.dtype.kind == "u" else _spread(levels)
    if image.has_transparency_data:
        plain = image.convert("RGBA")
    else:
        plain = image.convert("L" if image.mode in ("1", "L") else "RGB")
    return np.asarray(plain.reduce(max(1, max(plain.size) // SIDE)))


def _spread(levels: NDArray) -> NDArray:
    """Levels of any range, from 0.0 to 1.0."""
    low, high = float(levels.min()), float(levels.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("its levels are not finite")
    return (levels - low) / max(high - low, np.finfo(float).tiny)


def grey(picture: NDArray) -> NDArray[np.float64]:
    """A picture in grey, ``(H, W)`` from 0.0 (dark) to 1.0 (light).

    Colours become grey along the direction in which they differ most, the first principal component: ink as light as
    its paper, of another colour, is seen, too. Where a picture has transparency, either what is not transparent is a
    drawing, and is light on dark then, however it is coloured; or it is a sheet with a drawing on it, which is when it
    has several colours up to its border. What is transparent within its rectangle gets the border's grey.

    Args:
        picture: ``(H, W)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGB and opacity; bool, uint8, uint16, or a float type
            from 0.0 to 1.0.

    Raises:
        InputError: it has another dtype or shape, has no pixels, or is out of range.
    """
    levels = _levels(picture)
    if levels.ndim == 2:
        return levels
    one = _one_channel(levels[..., :3])
    return one if levels.shape[2] == 3 else _without_transparency(one, levels[..., 3])


def _levels(picture: NDArray) -> NDArray[np.float64]:
    """A picture's levels from 0.0 to 1.0, checked."""
    if not isinstance(picture, np.ndarray):
        raise InputError(f"picture: {type(picture).__name__} is not allowed: a NumPy array")
    shape, dtype = picture.shape, picture.dtype
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))) or 0 in shape:
        raise InputError(f"picture: the shape {shape} is not allowed: (H, W), (H, W, 3) or (H, W, 4)")
    if dtype.kind == "b" or (dtype.kind == "u" and dtype.itemsize <= 2):
        return picture.astype(np.float64) / (1 if dtype.kind == "b" else np.iinfo(dtype).max)
    if dtype.kind != "f":
        raise InputError(f"picture: {dtype} is not allowed: bool, uint8, uint16, or a float type from 0.0 to 1.0")
    levels = picture.astype(np.float64)
    low, high = levels.min(), levels.max()
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise InputError(f"picture: {low:g} to {high:g} is not allowed: floats from 0.0 to 1.0")
    return levels


def _one_channel(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(H, W, 3)`` as ``(H, W)``, along the colours' first principal component; as it is, where there are none."""
    first = colours[..., 0]
    if (colours == first[..., None]).all():
        return first
    flat = colours.reshape(-1, 3)
    direction = np.linalg.eigh(np.cov(flat, rowvar=False, ddof=0))[1][:, -1]
    direction *= np.copysign(1, direction.sum())
    lowest = direction[direction < 0].sum()
    projected: NDArray[np.float64] = (colours @ direction - lowest) / np.abs(direction).sum()
    return projected


def _without_transparency(levels: NDArray[np.float64], opacity: NDArray[np.float64]) -> NDArray[np.float64]:
    there = opacity > opacity.max() / 2
    if not there.any():
        raise InputError("has no ink: all of it is transparent")
    box = box_of(there)
    inside, shown, border = levels[box], there[box], frame(there[box].shape)
    is_sheet = shown[border].mean() > 0.5 and np.ptp(inside[shown]) > _SAME_COLOUR
    if not is_sheet:
        return opacity
    behind = np.median(inside[border & shown])
    return np.where(shown, inside, behind)


def box_of(mask: NDArray) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle that has all of a mask, which is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def frame(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The border of a picture of a shape ``(H, W)``: a twentieth of its shorter side on each."""
    width = max(1, min(shape) // 20)
    border = np.ones(shape, dtype=np.bool_)
    border[width:-width, width:-width] = False
    return border
