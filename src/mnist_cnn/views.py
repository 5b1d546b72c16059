"""What a network gets to see of an image: as it is or set upright, once or in several views."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mnist_cnn.augmentation import transform
from mnist_cnn.data import Images, intensities
from mnist_cnn.params import Recipe

# Where a recipe has five views: the image as it is, then turned anticlockwise by degrees and shifted to the left and up
# by pixels. By one pixel, because a pool then takes other neighbours together. Augmentation makes such changes, too.
FIVE_VIEWS = ((0.0, 0.0, 0.0), (6.0, -1.0, 0.0), (-6.0, 1.0, 0.0), (-6.0, 0.0, -1.0), (6.0, 0.0, 1.0))

# Images at a time: what is computed on the way takes a hundred times their own memory.
_CHUNK = 2000


def for_training(images: Images, recipe: Recipe) -> Images:
    """Images as a recipe trains on them, before any augmentation."""
    if not recipe.deslant:
        return images
    return Images(torch.cat([set_upright(pixels) for pixels in images.pixels.split(_CHUNK)]), images.labels)


def for_use(images: Images, recipe: Recipe) -> Images:
    """Images as networks trained by a recipe are to recognise them, in as many views as it says."""
    upright = for_training(images, recipe)
    if recipe.views == 1:
        return upright
    return Images(torch.cat([_five_views(pixels) for pixels in upright.pixels.split(_CHUNK)]), images.labels)


def set_upright(pixels: Tensor) -> Tensor:
    """Digits whose rows are moved sideways until the ink does not slant; uint8 ``(N, H, W)``, as those given.

    The slant is by how much the ink lies further to the right, on average, with each row further down: the slope of
    the line of least squares through it. Rows move by it as far as they are from the ink's middle, whose place stays.
    They are resampled linearly; what comes in from outside is 0 (background). Where there is no ink, or all of it is in
    one row, nothing moves.

    Source: "Gradient-Based Learning Applied to Document Recognition", 1998, https://doi.org/10.1109/5.726791
    """
    _, height, width = pixels.shape
    y, x = torch.arange(height, device=pixels.device), torch.arange(width, device=pixels.device)
    # Sums of whole numbers: in whatever order they are added, not a bit is another.
    ink = pixels.long()
    rows, columns = ink.sum(2), ink.sum(1)
    total, sum_y, sum_yy = rows.sum(1), (rows * y).sum(1), (rows * y * y).sum(1)
    sum_x, sum_xy = (columns * x).sum(1), ((ink * x).sum(2) * y).sum(1)
    slant = (total * sum_xy - sum_x * sum_y).double() / (total * sum_yy - sum_y * sum_y).clamp(min=1)
    middle = sum_y.double() / total.clamp(min=1)

    source = x + (slant.unsqueeze(1) * (y - middle.unsqueeze(1))).unsqueeze(2)
    left = source.floor()
    share = source - left
    framed = F.pad(ink, (1, 1))

    def ink_at(column: Tensor) -> Tensor:
        return framed.gather(2, (column.long() + 1).clamp(0, width + 1))

    return (ink_at(left) * (1 - share) + ink_at(left + 1) * share).round().to(torch.uint8)


def _five_views(pixels: Tensor) -> Tensor:
    """uint8 ``(N, 5, H, W)``, from ``(N, H, W)``."""
    count = len(pixels)
    seen = [
        transform(intensities(pixels), *torch.tensor([[math.radians(angle)], [1], [x], [y]]).expand(4, count))
        for angle, x, y in FIVE_VIEWS
    ]
    return (torch.cat(seen, dim=1) * 255).round().to(torch.uint8)
