"""What a network makes of images, and how good that is. Accuracies and rates are in percent."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mnist_cnn.data import CLASSES, Images, Normalisation, intensities
from mnist_cnn.errors import InputError


class Predictions(NamedTuple):
    """``scores`` float32 ``(N, 10)`` (logits) and the true ``labels`` int64 ``(N,)``, both on the CPU."""

    scores: Tensor
    labels: Tensor


def predict(
    evaluated: Callable[[Tensor], Tensor],
    images: Images,
    normalisation: Normalisation,
    batch_size: int,
    device: torch.device,
) -> Predictions:
    """The scores of images, without augmentation; of several views of an image their mean.

    Args:
        evaluated: from normalised images ``(N, 1, 28, 28)`` float32 on ``device`` to scores ``(N, 10)`` float32;
            see ``engine.evaluation_pass``.

    Raises:
        InputError: scores are not finite, so that no figure of them means anything.
    """

    def scores(pixels: Tensor) -> Tensor:
        return evaluated(normalisation(intensities(pixels)))

    images, shape = images.to(device), images.pixels.shape[-2:]
    means = [
        torch.stack([scores(view) for view in batch.pixels.view(len(batch.labels), -1, *shape).unbind(1)]).mean(0)
        for batch in images.batches(batch_size)
    ]
    predictions = Predictions(torch.cat(means).cpu(), images.labels.cpu())
    lost = int((~predictions.scores.isfinite().all(1)).sum())
    if lost:
        raise InputError(f"the scores of {lost:,} of {len(predictions.labels):,} images are not finite numbers")
    return predictions


def accuracy(predictions: Predictions) -> float:
    """Share of images whose highest score is that of their label, in percent."""
    recognised = (predictions.scores.argmax(1) == predictions.labels).sum().item()
    # In this order the quotient is rounded once: 942 of 1,000 are 94.2, not a little less, and meet that target.
    return 100 * recognised / len(predictions.labels)


def loss(predictions: Predictions) -> float:
    """Mean cross-entropy, in nats an image."""
    return F.cross_entropy(predictions.scores.double(), predictions.labels).item()


def confusion(predictions: Predictions) -> Tensor:
    """Counts, int64 ``(10, 10)``: a row is a true class, a column a predicted one."""
    cells = predictions.labels * CLASSES + predictions.scores.argmax(1)
    return torch.bincount(cells, minlength=CLASSES * CLASSES).view(CLASSES, CLASSES)


def recall(counts: Tensor) -> Tensor:
    """Share of each true class that was recognised, float64 ``(10,)`` in percent, from a confusion matrix.

    A class without images has recall nan.
    """
    return 100 * counts.diagonal().double() / counts.sum(1).double()


def calibration_error(predictions: Predictions, bins: int) -> float:
    """Expected calibration error in points: how far confidence is from accuracy, on average.

    Images are put into ``bins`` equal intervals of the probability of their predicted class; the distances
    between mean probability and accuracy are averaged, weighted by the intervals' sizes.

    Source: "On Calibration of Modern Neural Networks", 2017, https://arxiv.org/abs/1706.04599
    """
    confidence, predicted = predictions.scores.double().softmax(1).max(1)
    correct = (predicted == predictions.labels).double()
    interval = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, interval, correct - confidence)
    return 100 * gap.abs().sum().item() / len(correct)


def wilson_interval(correct: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Score interval of a proportion, in percent; ``z`` is the normal quantile, by default of 95 %.

    Source: "Probable Inference, the Law of Succession, and Statistical Inference", 1927,
    https://doi.org/10.1080/01621459.1927.10502953
    """
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)
