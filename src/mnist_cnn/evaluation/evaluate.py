"""A trained network measured: on training and validation split, and, where a look is declared, on the test set."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor, nn

from mnist_cnn.data.images import Images, Normalisation, Splits, intensities
from mnist_cnn.engine.execution import ExecutionConfig
from mnist_cnn.engine.passes import check_engine
from mnist_cnn.engine.predictor import Predictions, Predictor
from mnist_cnn.evaluation.metrics import Metrics, OnTestSet, calibration_error, confusion, recall
from mnist_cnn.evaluation.summary import parameter_count
from mnist_cnn.settings.params import Evaluate, Recipe

# How many of an image's classes are kept, the likeliest first.
_LIKELIEST = 3

Predict: TypeAlias = Callable[[Images], Predictions]


class Misclassified(NamedTuple):
    """A validation image that the network took for another class.

    ``likeliest`` are three classes with their probabilities (0 to 1), the likeliest first; ``pixels`` are 28 rows of
    28, 0 to 255.
    """

    image: int
    label: int
    likeliest: list[tuple[int, float]]
    pixels: list[list[int]]

    @property
    def predicted(self) -> int:
        """The class that it was taken for."""
        return self.likeliest[0][0]


class Evaluation(NamedTuple):
    """A model's metrics, its confusion matrix ``(10, 10)`` and misclassified images, both of the validation split."""

    metrics: Metrics
    confusion: Tensor
    misclassified: list[Misclassified]


def checked_predictor(
    network: nn.Module,
    normalisation: Normalisation,
    sample: Images,
    recipe: Recipe,
    measure: Evaluate,
    execution: ExecutionConfig,
) -> Predictor:
    """The predictions of a network that was trained by ``recipe``.

    Args:
        sample: images by which its engine is compared with PyTorch.
        execution: with an engine that has been decided on.

    Raises:
        InputError: the engine computes other logits than PyTorch.
    """
    check_engine(network, normalisation(intensities(sample.first(measure.batch_size).pixels)), execution)
    return Predictor(
        network.to(execution.device), normalisation, execution, tta=recipe.tta, batch_size=measure.batch_size
    )


def evaluate(
    network: nn.Module, predict: Predict, splits: Splits, written: Tensor, epochs: int, bins: int, engine: str
) -> Evaluation:
    """Measure a network on ``train`` and ``val``.

    Classes without images have no recall, and none is the worst.

    Args:
        splits: deskewed where the recipe says so.
        written: the validation images' pixels as they were written, uint8 ``(N, 28, 28)``, to show.
        bins: of the calibration error.

    Raises:
        InputError: the network's logits are not finite.
    """
    train, val = predict(splits.train), predict(splits.val)
    counts = confusion(val)
    metrics = Metrics(
        parameters=parameter_count(network),
        epochs=epochs,
        train_accuracy=round(train.accuracy, 4),
        val_accuracy=round(val.accuracy, 4),
        val_loss=round(val.loss, 6),
        calibration_error=round(calibration_error(val, bins), 4),
        worst_class_recall=round(min(recall(counts)[counts.sum(1) > 0].tolist()), 4),
        engine=engine,
    )
    return Evaluation(metrics, counts, misclassified(written, val))


def on_test_set(predict: Predict, images: Images, robustness: dict[str, float]) -> OnTestSet:
    """Measure a network on the test images. Raises InputError where its logits are not finite."""
    found = predict(images)
    return OnTestSet(len(found.labels), int(found.correct.sum()), round(found.loss, 6), robustness)


def misclassified(pixels: Tensor, predictions: Predictions) -> list[Misclassified]:
    """The images whose highest logit is not their label's, the highest probability first."""
    classes = predictions.logits.argsort(dim=1, descending=True, stable=True)[:, :_LIKELIEST]
    probabilities = predictions.logits.double().softmax(1).gather(1, classes)
    wrong = (~predictions.correct).nonzero().squeeze(1)
    wrong = wrong[probabilities[wrong, 0].argsort(descending=True, stable=True)]
    return [
        Misclassified(
            index,
            int(predictions.labels[index]),
            [(int(k), round(float(p), 4)) for k, p in zip(classes[index], probabilities[index], strict=True)],
            pixels[index].tolist(),
        )
        for index in wrong.tolist()
    ]
