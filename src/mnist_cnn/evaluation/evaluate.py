"""A trained network measured on all three splits."""

from typing import NamedTuple

from torch import Tensor, nn

from mnist_cnn.data.images import Splits, intensities
from mnist_cnn.engine.execution import ExecutionConfig, choose_engine
from mnist_cnn.engine.passes import check_engine
from mnist_cnn.engine.predictor import Predictions, Predictor
from mnist_cnn.evaluation.metrics import Metrics, calibration_error, confusion, recall
from mnist_cnn.evaluation.summary import parameter_count
from mnist_cnn.settings.params import Evaluate, Recipe, Targets


class Misclassified(NamedTuple):
    """A test image that the network took for another class, with the probability (0 to 1) that it gave that class.

    ``pixels`` are 28 rows of 28, 0 to 255.
    """

    image: int
    label: int
    predicted: int
    probability: float
    pixels: list[list[int]]


class Evaluation(NamedTuple):
    """A model's metrics, the confusion matrix of the test set ``(10, 10)``, and the misclassified test images."""

    metrics: Metrics
    confusion: Tensor
    misclassified: list[Misclassified]


def evaluate(
    network: nn.Module,
    splits: Splits,
    written: Tensor,
    recipe: Recipe,
    targets: Targets,
    measure: Evaluate,
    execution: ExecutionConfig,
) -> Evaluation:
    """Measure ``network``, which was trained by ``recipe``, on ``train``, ``val`` and ``test``.

    Classes without test images have no recall, and none is the worst.

    Args:
        splits: deskewed where the recipe says so.
        written: the test images' pixels as they were written, uint8 ``(N, 28, 28)``, to show.

    Raises:
        InputError: the network's logits are not finite, or its engine computes others than PyTorch.
    """
    execution = choose_engine(network, execution).execution
    check_engine(network, splits.normalisation(intensities(splits.val.first(measure.batch_size).pixels)), execution)
    predictor = Predictor(
        network.to(execution.device),
        splits.normalisation,
        execution,
        tta=recipe.tta,
        batch_size=measure.batch_size,
    )
    train, val, test = (predictor(splits.images[name]) for name in ("train", "val", "test"))
    counts, parameters = confusion(test), parameter_count(network)
    metrics = Metrics(
        parameters=parameters,
        epochs=recipe.epochs,
        train_accuracy=round(train.accuracy, 4),
        val_accuracy=round(val.accuracy, 4),
        test_accuracy=round(test.accuracy, 4),
        test_loss=round(test.loss, 6),
        generalization_gap=round(train.accuracy - test.accuracy, 4),
        calibration_error=round(calibration_error(test, measure.calibration_bins), 4),
        worst_class_recall=round(min(recall(counts)[counts.sum(1) > 0].tolist()), 4),
        meets_accuracy_target=test.accuracy >= targets.test_accuracy,
        meets_epochs_target=recipe.epochs <= targets.max_epochs,
        meets_parameters_target=parameters < targets.parameters_below,
        engine=execution.engine,
    )
    return Evaluation(metrics, counts, misclassified(written, test))


def misclassified(pixels: Tensor, predictions: Predictions) -> list[Misclassified]:
    """The images whose highest logit is not their label's, the highest probability first."""
    probability, predicted = predictions.logits.double().softmax(1).max(1)
    wrong = (~predictions.correct).nonzero().squeeze(1)
    wrong = wrong[probability[wrong].argsort(descending=True, stable=True)]
    return [
        Misclassified(
            index,
            int(predictions.labels[index]),
            int(predicted[index]),
            round(float(probability[index]), 4),
            pixels[index].tolist(),
        )
        for index in wrong.tolist()
    ]
