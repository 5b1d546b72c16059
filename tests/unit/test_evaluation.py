"""The metrics of a network whose answers are known."""

import math

import pytest
import torch
from torch import Tensor, nn

from mnist_cnn.data import Images, Normalisation
from mnist_cnn.engine import Compute
from mnist_cnn.evaluation import Evaluation, Misread, evaluate
from mnist_cnn.settings.params import Recipe, Targets
from mnist_cnn.views import for_use
from tests.unit.test_training import RECIPE

RECIPE_OF_15 = RECIPE.model_copy(update={"epochs": 15})
TARGETS = Targets(test_accuracy=99.4, max_epochs=15, parameters_below=8000)

# True class, predicted class, its probability in steps of 1/255.
SURE, UNSURE = 204, 153
RIGHT = [(label, label, SURE) for label in range(10)]
TEST = [*RIGHT, (3, 5, UNSURE), *RIGHT, (7, 1, SURE), *RIGHT, (7, 2, 230), (9, 5, UNSURE)]


class Told(nn.Module):
    """Predicts the class that an image's first pixel holds, with the probability that its second one holds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(7))

    def forward(self, input: Tensor) -> Tensor:
        predicted, probability = (input[:, 0, 0, 0] * 255).round().long(), input[:, 0, 0, 1].double()
        rest = ((1 - probability) / 9).unsqueeze(1).repeat(1, 10)
        return rest.scatter(1, predicted.unsqueeze(1), probability.unsqueeze(1)).log()


def images(cases: list[tuple[int, int, int]]) -> Images:
    pixels = torch.zeros(len(cases), 28, 28, dtype=torch.uint8)
    pixels[:, 0, :2] = torch.tensor([case[1:] for case in cases])
    return Images(pixels, torch.tensor([case[0] for case in cases]))


def slanting() -> Images:
    pixels = torch.zeros(30, 28, 28, dtype=torch.uint8)
    for image in range(30):
        for row in range(8, 20):
            pixels[image, row, image // 2 + row // 2] = 200
    return Images(pixels, torch.arange(30) % 10)


def evaluated(
    test: list[tuple[int, int, int]] = TEST,
    train: list[tuple[int, int, int]] = RIGHT,
    targets: Targets = TARGETS,
    batch_size: int = 4,
    recipe: Recipe = RECIPE_OF_15,
) -> Evaluation:
    return evaluate(
        Told(),
        {"train": images(train), "val": images([*RIGHT, (4, 9, SURE)]), "test": images(test)},
        Normalisation(0, 1),
        recipe,
        targets,
        batch_size=batch_size,
        calibration_bins=4,
        compute=Compute(torch.device("cpu")),
    )


def test_the_metrics_are_those_computed_by_hand_in_their_order_and_rounded() -> None:
    sure, surest = SURE / 255, 230 / 255
    surprise = -30 * math.log(sure) - 2 * math.log((1 - 0.6) / 9) - math.log((1 - sure) / 9)
    surprise -= math.log((1 - surest) / 9)
    # Two intervals are in use: the two unsure images, and all others.
    distance = 2 * 0.6 + abs(31 * sure + surest - 30)
    expected = {
        "parameters": 7,
        "epochs": 15,
        "train_accuracy": 100,
        "val_accuracy": 90.9091,
        "test_accuracy": 88.2353,
        "test_loss": round(surprise / 34, 6),
        "generalization_gap": 11.7647,
        "calibration_error": round(100 * distance / 34, 4),
        "worst_class_recall": 60,
        "meets_accuracy_target": False,
        "meets_epochs_target": True,
        "meets_parameters_target": True,
        "engine": "torch",
    }
    metrics = evaluated().metrics
    assert metrics == expected
    assert list(metrics) == list(expected)
    assert [type(value) for value in metrics.values()] == [int, int, *[float] * 7, *[bool] * 3, str]


@pytest.mark.parametrize(
    ("target", "accuracy", "epochs", "parameters"),
    [
        (TARGETS.model_copy(update={"test_accuracy": 100.0}), True, True, True),
        (TARGETS.model_copy(update={"max_epochs": 14}), True, False, True),
        (TARGETS.model_copy(update={"parameters_below": 7}), True, True, False),
        (TARGETS.model_copy(update={"parameters_below": 8}), True, True, True),
    ],
)
def test_targets_are_met_at_their_bounds(target: Targets, accuracy: bool, epochs: bool, parameters: bool) -> None:
    metrics = evaluated(RIGHT, targets=target).metrics
    assert metrics["meets_accuracy_target"] is accuracy
    assert metrics["meets_epochs_target"] is epochs
    assert metrics["meets_parameters_target"] is parameters


@pytest.mark.parametrize("right", [900, 942, 949, 994, 1000])
def test_an_accuracy_that_equals_its_target_meets_it(right: int) -> None:
    test = [(1, 1, SURE)] * right + [(1, 2, SURE)] * (1000 - right)
    targets = TARGETS.model_copy(update={"test_accuracy": right / 10})
    metrics = evaluated(test, targets=targets, batch_size=1000).metrics
    assert metrics["test_accuracy"] == right / 10
    assert metrics["meets_accuracy_target"]


def test_a_model_better_on_test_than_in_training_has_a_negative_gap() -> None:
    metrics = evaluated(test=RIGHT, train=[*RIGHT, (4, 9, SURE)]).metrics
    assert metrics["generalization_gap"] == -9.0909


def test_the_confusion_is_that_of_the_test_part() -> None:
    expected = 3 * torch.eye(10, dtype=torch.int64)
    expected[3, 5], expected[9, 5], expected[7, 1], expected[7, 2] = 1, 1, 1, 1
    assert torch.equal(evaluated().confusion, expected)


def test_misread_images_are_listed_the_surest_first_and_else_in_order() -> None:
    pixels = images(TEST).pixels.tolist()
    assert evaluated().misread == [
        Misread(32, 7, 2, 0.902, pixels[32]),
        Misread(21, 7, 1, 0.8, pixels[21]),
        Misread(10, 3, 5, 0.6, pixels[10]),
        Misread(33, 9, 5, 0.6, pixels[33]),
    ]
    assert evaluated(RIGHT).misread == []


def test_nothing_depends_on_the_batch_size() -> None:
    first, other = evaluated(batch_size=1), evaluated(batch_size=1000)
    assert first.metrics == other.metrics
    assert first.misread == other.misread


def test_what_is_measured_is_what_the_recipe_has_the_network_see_and_what_is_shown_is_as_it_was() -> None:
    parts = {"train": images(RIGHT), "val": images(RIGHT), "test": slanting()}
    recipe = RECIPE.model_copy(update={"deskew": True, "views": 5})

    def measured(parts: dict[str, Images], recipe: Recipe) -> Evaluation:
        torch.manual_seed(1)
        return evaluate(
            nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
            parts,
            Normalisation(0.5, 0.3),
            recipe,
            TARGETS,
            batch_size=4,
            calibration_bins=4,
            compute=Compute(torch.device("cpu")),
        )

    result = measured(parts, recipe)
    same = measured({name: for_use(part, recipe) for name, part in parts.items()}, RECIPE)
    assert result.metrics == same.metrics != measured(parts, RECIPE).metrics
    assert len(result.misread) > 5
    for image in result.misread:
        assert image.pixels == parts["test"].pixels[image.image].tolist()
