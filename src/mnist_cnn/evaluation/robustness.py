"""How well a network classifies corrupted copies of images."""

from collections.abc import Callable

from mnist_cnn.data.deskew import deskew
from mnist_cnn.data.images import Images
from mnist_cnn.engine.predictor import Predictions
from mnist_cnn.evaluation.corruptions import corruptions
from mnist_cnn.settings.robustness import Robustness


def robustness(
    predict: Callable[[Images], Predictions], images: Images, deskewed: bool, severities: Robustness
) -> dict[str, float]:
    """Accuracy on the images as each corruption leaves them, in percent, rounded to 4 decimals, by its name.

    Args:
        predict: a ``Predictor``.
        images: as they were written.
        deskewed: whether the network is used on deskewed digits; then they are corrupted first, and deskewed after.
    """
    accuracies = {}
    for corruption in corruptions(severities):
        corrupted = corruption(images.pixels, severities.seed)
        seen = images._replace(pixels=deskew(corrupted) if deskewed else corrupted)
        accuracies[corruption.name] = round(predict(seen).accuracy, 4)
    return accuracies
