"""Corruptions of images, in copies that measure how far a model can be trusted and guide nothing.

The same seed should give the same bytes on any machine and with any PyTorch (a test holds their sum): random numbers
come from a generator on the CPU in a fixed order, there is no matrix multiplication, and results are rounded to whole
intensities from float64, or from numbers that float32 holds exactly.

Sources: "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019,
https://arxiv.org/abs/1903.12261; "MNIST-C: A Robustness Benchmark for Computer Vision", 2019,
https://arxiv.org/abs/1906.02337
"""

import math
import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mnist_cnn.data.augmentation import transform
from mnist_cnn.settings.robustness import Robustness

# Images at a time: intermediate results take a hundred times their own memory. What is drawn does not depend on it.
_CHUNK = 1000
# Strokes are widened and narrowed in images so many times as wide and as high.
_FINER = 4
# Steps to the left and upwards: along the rows, along the columns, or both at once.
_DIRECTIONS = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]


class Corruption(NamedTuple):
    """One way to corrupt images.

    ``name`` is its key in records, and stays when its severity changes; ``label`` is for tables and figures.
    ``apply`` takes uint8 ``(N, 28, 28)`` and a generator on the CPU, and returns the like.
    """

    name: str
    label: str
    apply: Callable[[Tensor, Generator], Tensor]

    def __call__(self, pixels: Tensor, seed: int) -> Tensor:
        """The images corrupted, uint8 ``(N, 28, 28)`` on the CPU.

        Random numbers follow from the seed and the name alone, so no corruption changes with the others; those of an
        image follow from its place and from no other image.

        Args:
            pixels: uint8 ``(N, 28, 28)``, 0 is background; left as they are.
        """
        generator = Generator().manual_seed(zlib.crc32(f"{self.name} {seed}".encode()))
        return torch.cat([self.apply(chunk, generator) for chunk in pixels.cpu().split(_CHUNK)])


def corruptions(severities: Robustness) -> list[Corruption]:
    """All corruptions, in the order of tables."""
    s = severities
    return [
        Corruption("rotation_left", f"Rotation +{s.rotation_deg:g}°", partial(_rotate, degrees=s.rotation_deg)),
        Corruption("rotation_right", f"Rotation −{s.rotation_deg:g}°", partial(_rotate, degrees=-s.rotation_deg)),
        Corruption("shift_small", f"Shift {s.small_shift_px:g} px", partial(_shift, distance=s.small_shift_px)),
        Corruption("shift_large", f"Shift {s.large_shift_px:g} px", partial(_shift, distance=s.large_shift_px)),
        Corruption("scale_down", f"Scale {s.scale_down:g}", partial(_scale, factor=s.scale_down)),
        Corruption("scale_up", f"Scale {s.scale_up:g}", partial(_scale, factor=s.scale_up)),
        Corruption("thicker", f"Strokes +{s.thicker_px:g} px", partial(_widen_strokes, by=s.thicker_px)),
        Corruption("thinner", f"Strokes −{s.thinner_px:g} px", partial(_widen_strokes, by=-s.thinner_px)),
        Corruption("blur", f"Blur {s.blur_px:g} px", partial(_blur, deviation=s.blur_px)),
        Corruption("noise_weak", f"Noise {s.weak_noise:g}", partial(_add_noise, deviation=s.weak_noise)),
        Corruption("noise_strong", f"Noise {s.strong_noise:g}", partial(_add_noise, deviation=s.strong_noise)),
        Corruption(
            "salt_and_pepper",
            f"Salt and pepper {s.salt_and_pepper_percent:g} %",
            partial(_salt_and_pepper, fraction=s.salt_and_pepper_percent / 100),
        ),
        Corruption("contrast", f"Contrast {s.contrast:g}", partial(_reduce_contrast, factor=s.contrast)),
        Corruption("inversion", "Inversion", _invert),
    ]


def _rotate(pixels: Tensor, _: Generator, *, degrees: float) -> Tensor:
    """Around the middle, anticlockwise."""
    return _transformed(pixels, angle=math.radians(degrees))


def _scale(pixels: Tensor, _: Generator, *, factor: float) -> Tensor:
    """Around the middle."""
    return _transformed(pixels, scale=factor)


def _shift(pixels: Tensor, generator: Generator, *, distance: float) -> Tensor:
    """By so many pixels along the rows, along the columns, or along both: eight directions, one drawn an image.

    So a shift by whole pixels resamples nothing.
    """
    drawn = torch.randint(len(_DIRECTIONS), (len(pixels),), generator=generator)
    left, up = (torch.tensor(_DIRECTIONS)[drawn] * distance).unbind(1)
    return _transformed(pixels, left=left, up=up)


def _transformed(
    pixels: Tensor, angle: float = 0.0, scale: float = 1.0, left: Tensor | float = 0.0, up: Tensor | float = 0.0
) -> Tensor:
    """Images as ``transform`` changes them; what comes in from outside is background."""
    changes = (torch.as_tensor(x, dtype=torch.float64).expand(len(pixels)) for x in (angle, scale, left, up))
    # Whole numbers, and not fractions of 255, so that weights of a half or a quarter give the same sums everywhere.
    return _whole(transform(pixels.unsqueeze(1).double(), *changes).squeeze(1))


def _widen_strokes(pixels: Tensor, _: Generator, *, by: float) -> Tensor:
    """Strokes wider by so many pixels, half of it on each side, or narrower where it is negative.

    A grey dilation or erosion by a square, in a finer image: a pixel on each side would be the least in the image
    itself, and most strokes are two to four pixels wide.

    Source: "Morpho-MNIST: Quantitative Assessment and Diagnostics for Representation Learning", 2019,
    https://arxiv.org/abs/1809.10780
    """
    reach = round(abs(by) * _FINER / 2)
    if not reach:
        return pixels.clone()
    # All weights are multiples of 1/64 and all averages of 1/1024, which float32 holds exactly.
    finer = F.interpolate(pixels.unsqueeze(1).float(), scale_factor=_FINER, mode="bilinear", align_corners=False)
    lightest = math.copysign(1, by) * finer
    for _axis in range(2):  # along the rows and along the columns: a fifth of the time of a square
        lightest = F.max_pool1d(lightest.flatten(0, 2), 2 * reach + 1, stride=1, padding=reach).view_as(finer).mT
    return _whole(F.avg_pool2d(math.copysign(1, by) * lightest, _FINER).squeeze(1))


def _blur(pixels: Tensor, _: Generator, *, deviation: float) -> Tensor:
    """By a Gaussian of that standard deviation, in pixels; outside is background."""
    reach = math.ceil(3 * deviation)
    weights = [math.exp(-((step / deviation) ** 2) / 2) if step else 1.0 for step in range(-reach, reach + 1)]
    blurred = pixels.double()
    for dim, margin in ((1, (0, 0, reach, reach)), (2, (reach, reach))):
        padded, size = F.pad(blurred, margin), blurred.shape[dim]
        parts = (padded.narrow(dim, start, size) * (weight / sum(weights)) for start, weight in enumerate(weights))
        blurred = sum(parts, torch.zeros(()))
    return _whole(blurred)


def _add_noise(pixels: Tensor, generator: Generator, *, deviation: float) -> Tensor:
    """Gaussian, of that standard deviation on the scale 0 to 1; cut off at black and white."""
    # In float64 the last bits, in which machines differ, are far below what is rounded away.
    noise = torch.randn(pixels.shape, dtype=torch.float64, generator=generator)
    return _whole(pixels + noise * (255 * deviation))


def _salt_and_pepper(pixels: Tensor, generator: Generator, *, fraction: float) -> Tensor:
    """So many of the pixels, each by itself, are made white or black, one as often as the other."""
    drawn = torch.rand(pixels.shape, dtype=torch.float64, generator=generator)
    return pixels.masked_fill(drawn < fraction, 0).masked_fill(drawn < fraction / 2, 255)


def _reduce_contrast(pixels: Tensor, _: Generator, *, factor: float) -> Tensor:
    """The difference of each pixel from its image's mean, times a factor."""
    mean = pixels.sum((1, 2), keepdim=True).double() / pixels[0].numel()
    return _whole(mean + (pixels - mean) * factor)


def _invert(pixels: Tensor, _: Generator) -> Tensor:
    """Black for white."""
    return 255 - pixels


def _whole(intensities: Tensor) -> Tensor:
    """Rounded to uint8, and cut off at 0 and 255."""
    # Scaling gives exact halves, which one machine's last bit puts above and another's below. Here all are above.
    return (intensities.double() + 1e-6).round().clamp(0, 255).to(torch.uint8)
