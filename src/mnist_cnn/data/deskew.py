"""Digits without their slant."""

import torch
from torch import Tensor
from torch.nn import functional as F

# Images at a time: intermediate results take a hundred times their own memory.
_CHUNK = 2000


def deskew(pixels: Tensor) -> Tensor:
    """Digits whose rows are moved sideways until the ink does not slant; uint8 ``(N, H, W)``, as those given.

    The slant is the slope of the least-squares line through the ink: by how much the ink lies further to the right,
    on average, with each row further down. Each row moves by the slant times its distance from the ink's mean row, so
    the mean stays. Rows are resampled linearly and rounded; what comes in from outside is 0 (background). Where there
    is no ink, or all of it is in one row, nothing moves.

    Source: "Gradient-Based Learning Applied to Document Recognition", 1998, https://doi.org/10.1109/5.726791
    """
    return torch.cat([_deskew(chunk) for chunk in pixels.split(_CHUNK)])


def _deskew(pixels: Tensor) -> Tensor:
    _, height, width = pixels.shape
    y, x = torch.arange(height, device=pixels.device), torch.arange(width, device=pixels.device)
    # Sums of whole numbers are the same in any order, so the result has the same bits everywhere.
    ink = pixels.long()
    rows, columns = ink.sum(2), ink.sum(1)
    total, sum_y, sum_yy = rows.sum(1), (rows * y).sum(1), (rows * y * y).sum(1)
    sum_x, sum_xy = (columns * x).sum(1), ((ink * x).sum(2) * y).sum(1)
    slant = (total * sum_xy - sum_x * sum_y).double() / (total * sum_yy - sum_y * sum_y).clamp(min=1)
    mean_y = sum_y.double() / total.clamp(min=1)

    source = x + (slant.unsqueeze(1) * (y - mean_y.unsqueeze(1))).unsqueeze(2)
    left = source.floor()
    fraction = source - left
    padded = F.pad(ink, (1, 1))

    def ink_at(column: Tensor) -> Tensor:
        return padded.gather(2, (column.long() + 1).clamp(0, width + 1))

    return (ink_at(left) * (1 - fraction) + ink_at(left + 1) * fraction).round().to(torch.uint8)
