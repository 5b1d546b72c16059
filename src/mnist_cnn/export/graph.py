"""All that happens to an image, from its pixels to probabilities, as one PyTorch module that can be traced."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.data.deskew import deskew
from mnist_cnn.data.images import Normalisation, intensities
from mnist_cnn.engine.predictor import TTA_VIEWS


class FromPixels(nn.Module):
    """The probabilities that ``Predictor`` and a softmax give, of images as they were written.

    It has a copy of the network, on the CPU and in evaluation mode. The views of test-time augmentation go through it
    as one batch, so that a traced graph has the network once.

    Args:
        deskewed: the network was trained on deskewed images.
        tta: average the logits over ``TTA_VIEWS``.
    """

    _positions: Tensor | None

    def __init__(self, network: nn.Module, normalisation: Normalisation, *, deskewed: bool, tta: bool) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu()
        self._normalisation, self._deskewed = normalisation, deskewed
        # Of each view but the first, which is the image as it is.
        self.register_buffer("_positions", _sampled_at(TTA_VIEWS[1:]) if tta else None, persistent=False)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities ``(N, 10)`` float32 from pixels ``(N, 28, 28)`` uint8, 0 is background."""
        images = intensities(deskew(pixels) if self._deskewed else pixels)
        if self._positions is None:
            logits: Tensor = self.network(self._normalisation(images))
        else:
            views = _all_views(images, self._positions)
            logits = self.network(self._normalisation(views)).unflatten(0, (-1, len(TTA_VIEWS))).mean(1)
        return logits.softmax(1)


def _all_views(images: Tensor, positions: Tensor) -> Tensor:
    """``(N * views, 1, 28, 28)`` from ``(N, 1, 28, 28)``: each image, and it sampled at ``positions``."""
    # The views are sampled as one image, below one another.
    grid = positions.expand(images.shape[0], -1, -1, -1)
    below = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return torch.cat([images, below], dim=2).reshape(-1, 1, IMAGE_SIDE, IMAGE_SIDE)


def _sampled_at(views: tuple[tuple[float, float, float], ...]) -> Tensor:
    """Where in an image the pixels of its views lie, as ``grid_sample`` takes it: ``(1, views * 28, 28, 2)`` float32.

    The same changes as ``transform`` makes; that one has an angle and a shift for each image, which would be traced
    as arithmetic on the batch.
    """
    rows = []
    for angle_deg, left, up in views:
        cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
        rows.append([[cos, -sin, left * 2 / IMAGE_SIDE], [sin, cos, up * 2 / IMAGE_SIDE]])
    # In double precision, so that the rounded numbers are the same on every processor.
    changes = torch.tensor(rows, dtype=torch.float64).reshape(-1, 2, 3)
    grid = F.affine_grid(changes, [len(changes), 1, IMAGE_SIDE, IMAGE_SIDE], align_corners=False)
    return grid.float().reshape(1, -1, IMAGE_SIDE, 2)
