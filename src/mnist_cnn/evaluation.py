"""A trained network measured on all three parts."""

from typing import NamedTuple

from torch import Tensor, nn

from mnist_cnn import metrics
from mnist_cnn.data import Images, Normalisation, intensities
from mnist_cnn.describe import parameter_count
from mnist_cnn.engine import Compute, check_engine, choose_engine, evaluation_pass
from mnist_cnn.metrics import Predictions
from mnist_cnn.params import Recipe, Targets
from mnist_cnn.views import for_use


class Misread(NamedTuple):
    """A test image that the network took for another class, and how sure of it it was (0 to 1)."""

    image: int
    label: int
    predicted: int
    probability: float
    pixels: list[list[int]]


class Evaluation(NamedTuple):
    """The metrics, by the keys that every model shares; the test set's confusion; the misread test images."""

    metrics: dict[str, float | int | bool | str]
    confusion: Tensor
    misread: list[Misread]


def evaluate(
    network: nn.Module,
    parts: dict[str, Images],
    normalisation: Normalisation,
    recipe: Recipe,
    targets: Targets,
    *,
    batch_size: int,
    calibration_bins: int,
    compute: Compute,
) -> Evaluation:
    """Measure ``network``, which was trained by ``recipe``, on the parts ``train``, ``val`` and ``test``.

    Accuracies, gap, calibration error and recall are in percent or points, rounded to 4 decimals, the loss in
    nats to 6: more would be noise. The gap is training less test accuracy. ``engine`` is what computed: "native" or
    "torch". Classes without test images have no recall, and none is the worst.

    Raises:
        InputError: the network's scores are not finite, or its engine computes others than PyTorch.
    """
    compute = choose_engine(network, compute).compute
    first = next(parts["val"].batches(batch_size))
    check_engine(network, normalisation(intensities(first.pixels)), compute)
    evaluated = evaluation_pass(network.to(compute.device), batch_size, compute)
    predictions = {
        name: metrics.predict(evaluated, for_use(images, recipe), normalisation, batch_size, compute.device)
        for name, images in parts.items()
    }
    accuracy = {name: metrics.accuracy(predicted) for name, predicted in predictions.items()}
    counts = metrics.confusion(predictions["test"])
    parameters = parameter_count(network)
    return Evaluation(
        {
            "parameters": parameters,
            "epochs": recipe.epochs,
            "train_accuracy": round(accuracy["train"], 4),
            "val_accuracy": round(accuracy["val"], 4),
            "test_accuracy": round(accuracy["test"], 4),
            "test_loss": round(metrics.loss(predictions["test"]), 6),
            "generalization_gap": round(accuracy["train"] - accuracy["test"], 4),
            "calibration_error": round(metrics.calibration_error(predictions["test"], calibration_bins), 4),
            "worst_class_recall": round(min(metrics.recall(counts)[counts.sum(1) > 0].tolist()), 4),
            "meets_accuracy_target": accuracy["test"] >= targets.test_accuracy,
            "meets_epochs_target": recipe.epochs <= targets.max_epochs,
            "meets_parameters_target": parameters < targets.parameters_below,
            "engine": compute.engine,
        },
        counts,
        misread(parts["test"], predictions["test"]),
    )


def misread(images: Images, predictions: Predictions) -> list[Misread]:
    """The images whose highest score is not their label's, the surest mistake first."""
    probability, predicted = predictions.scores.double().softmax(1).max(1)
    wrong = (predicted != predictions.labels).nonzero().squeeze(1)
    wrong = wrong[probability[wrong].argsort(descending=True, stable=True)]
    return [
        Misread(
            index,
            int(predictions.labels[index]),
            int(predicted[index]),
            round(float(probability[index]), 4),
            images.pixels[index].tolist(),
        )
        for index in wrong.tolist()
    ]
