"""The logits of whole sets of images, with test-time augmentation where a recipe asks for it."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnist_cnn.common.errors import InputError
from mnist_cnn.data.augmentation import transform
from mnist_cnn.data.images import Images, Normalisation, intensities
from mnist_cnn.engine.execution import ExecutionConfig
from mnist_cnn.engine.passes import evaluation_pass

# The views of an image whose logits are averaged in test-time augmentation: the image as it is, then rotated
# anticlockwise by degrees and shifted to the left and up by pixels. Shifts of one pixel, because a pool then takes
# other neighbours together. Augmentation in training makes such changes, too.
TTA_VIEWS = ((0.0, 0.0, 0.0), (6.0, -1.0, 0.0), (-6.0, 1.0, 0.0), (-6.0, 0.0, -1.0), (6.0, 0.0, 1.0))


class Predictions(NamedTuple):
    """``logits`` float32 ``(N, 10)`` and the true ``labels`` int64 ``(N,)``, both on the CPU."""

    logits: Tensor
    labels: Tensor

    @property
    def correct(self) -> Tensor:
        """Whether each image's highest logit is that of its label, bool ``(N,)``."""
        return self.logits.argmax(1) == self.labels

    @property
    def accuracy(self) -> float:
        """Fraction of images that are classified correctly, in percent."""
        # In this order the quotient is rounded once: 942 of 1,000 are 94.2, not a little less, and meet that target.
        return 100 * int(self.correct.sum()) / len(self.labels)

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats an image."""
        return F.cross_entropy(self.logits.double(), self.labels).item()


class Predictor:
    """Predictions of a network, in evaluation mode and without random augmentation.

    Args:
        network: on the device; its weights are read at each call.
        tta: average the logits over ``TTA_VIEWS``.
        batch_size: images at a time.
    """

    def __init__(
        self,
        network: nn.Module,
        normalisation: Normalisation,
        execution: ExecutionConfig,
        *,
        tta: bool,
        batch_size: int,
    ) -> None:
        self._forward = evaluation_pass(network, batch_size, execution)
        self._normalisation, self._device = normalisation, execution.device
        self._views = TTA_VIEWS if tta else TTA_VIEWS[:1]
        self._batch_size = batch_size

    def __call__(self, images: Images) -> Predictions:
        """The predictions of images; deskewed ones, where the network was trained on such.

        Raises:
            InputError: logits are not finite, so that no figure of them means anything.
        """
        logits = torch.cat([self._logits(batch.pixels.to(self._device)) for batch in images.batches(self._batch_size)])
        predictions = Predictions(logits.cpu(), images.labels.cpu())
        lost = int((~predictions.logits.isfinite().all(1)).sum())
        if lost:
            raise InputError(f"the logits of {lost:,} of {len(predictions.labels):,} images are not finite numbers")
        return predictions

    def _logits(self, pixels: Tensor) -> Tensor:
        original = intensities(pixels)
        views = [original, *(_view(original, *view) for view in self._views[1:])]
        return torch.stack([self._forward(self._normalisation(view)) for view in views]).mean(0)


def _view(images: Tensor, angle_deg: float, left: float, up: float) -> Tensor:
    changes = torch.tensor([[math.radians(angle_deg)], [1.0], [left], [up]], device=images.device)
    return transform(images, *changes.expand(4, len(images)))
