"""The metrics of a network whose answers are known."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mnist_cnn.common.sealed import write_sealed
from mnist_cnn.data.deskew import deskew
from mnist_cnn.data.images import STATISTICS, Images, Normalisation, Splits, save_images
from mnist_cnn.engine.checkpoint import save_weights
from mnist_cnn.engine.predictor import Predictor
from mnist_cnn.evaluation.evaluate import Evaluation, Misclassified, evaluate
from mnist_cnn.models import build
from mnist_cnn.settings.params import Evaluate, Targets, load
from stages import evaluate as stage
from tests.helpers import NORMALISATION, RECIPE, ROOT, TORCH, bar, noise, splits_of

PARAMS = ROOT / "params.yaml"
RECIPE_OF_15 = RECIPE.model_copy(update={"epochs": 15})
TARGETS = Targets(test_accuracy=99.4, max_epochs=15, parameters_below=8000)

# True class, predicted class, its probability in steps of 1/255.
Case = tuple[int, int, int]
SURE, UNSURE = 204, 153
CORRECT: list[Case] = [(label, label, SURE) for label in range(10)]
TEST: list[Case] = [*CORRECT, (3, 5, UNSURE), *CORRECT, (7, 1, SURE), *CORRECT, (7, 2, 230), (9, 5, UNSURE)]


class AsToldByPixels(nn.Module):
    """Predicts the class that an image's first pixel holds, with the probability that its second one holds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(7))

    def forward(self, input: Tensor) -> Tensor:
        predicted, probability = (input[:, 0, 0, 0] * 255).round().long(), input[:, 0, 0, 1].double()
        rest = ((1 - probability) / 9).unsqueeze(1).repeat(1, 10)
        return rest.scatter(1, predicted.unsqueeze(1), probability.unsqueeze(1)).log()


def images_of(cases: list[Case]) -> Images:
    pixels = torch.zeros(len(cases), 28, 28, dtype=torch.uint8)
    pixels[:, 0, :2] = torch.tensor([case[1:] for case in cases])
    return Images(pixels, torch.tensor([case[0] for case in cases]))


def evaluated(
    test: list[Case] = TEST, train: list[Case] = CORRECT, targets: Targets = TARGETS, batch_size: int = 4
) -> Evaluation:
    images = {"train": images_of(train), "val": images_of([*CORRECT, (4, 9, SURE)]), "test": images_of(test)}
    measure = Evaluate(batch_size=batch_size, calibration_bins=4)
    splits = Splits(images, Normalisation(0, 1))
    return evaluate(AsToldByPixels(), splits, splits.test.pixels, RECIPE_OF_15, targets, measure, TORCH)


def test_the_metrics_are_those_computed_by_hand_in_their_order_and_rounded() -> None:
    sure, surest = SURE / 255, 230 / 255
    loss = -30 * math.log(sure) - 2 * math.log((1 - 0.6) / 9) - math.log((1 - sure) / 9) - math.log((1 - surest) / 9)
    # Two intervals are in use: the two unsure images, and all others.
    distance = 2 * 0.6 + abs(31 * sure + surest - 30)
    expected = {
        "parameters": 7,
        "epochs": 15,
        "train_accuracy": 100,
        "val_accuracy": 90.9091,
        "test_accuracy": 88.2353,
        "test_loss": round(loss / 34, 6),
        "generalization_gap": 11.7647,
        "calibration_error": round(100 * distance / 34, 4),
        "worst_class_recall": 60,
        "meets_accuracy_target": False,
        "meets_epochs_target": True,
        "meets_parameters_target": True,
        "engine": "torch",
    }
    metrics = evaluated().metrics.as_dict()
    assert metrics == expected
    assert list(metrics) == list(expected)
    assert [type(value) for value in metrics.values()] == [int, int, *[float] * 7, *[bool] * 3, str]


@pytest.mark.parametrize(
    ("changed", "accuracy", "epochs", "parameters"),
    [
        ({"test_accuracy": 100.0}, True, True, True),
        ({"max_epochs": 14}, True, False, True),
        ({"parameters_below": 7}, True, True, False),
        ({"parameters_below": 8}, True, True, True),
    ],
)
def test_targets_are_met_at_their_bounds(
    changed: dict[str, float], accuracy: bool, epochs: bool, parameters: bool
) -> None:
    metrics = evaluated(CORRECT, targets=TARGETS.model_copy(update=changed)).metrics
    assert metrics.meets_accuracy_target is accuracy
    assert metrics.meets_epochs_target is epochs
    assert metrics.meets_parameters_target is parameters


# 100 * (942 / 1000) is a little less than 94.2.
@pytest.mark.parametrize("correct", [942, 949, 994])
def test_an_accuracy_that_equals_its_target_meets_it(correct: int) -> None:
    test = [(1, 1, SURE)] * correct + [(1, 2, SURE)] * (1000 - correct)
    targets = TARGETS.model_copy(update={"test_accuracy": correct / 10})
    metrics = evaluated(test, targets=targets, batch_size=1000).metrics
    assert metrics.test_accuracy == correct / 10
    assert metrics.meets_accuracy_target


def test_a_model_better_on_test_than_in_training_has_a_negative_gap() -> None:
    assert evaluated(test=CORRECT, train=[*CORRECT, (4, 9, SURE)]).metrics.generalization_gap == -9.0909


def test_the_confusion_is_that_of_the_test_split() -> None:
    expected = 3 * torch.eye(10, dtype=torch.int64)
    expected[3, 5], expected[9, 5], expected[7, 1], expected[7, 2] = 1, 1, 1, 1
    assert torch.equal(evaluated().confusion, expected)


def test_misclassified_images_are_listed_the_most_probable_first_and_else_in_order() -> None:
    pixels = images_of(TEST).pixels.tolist()
    assert evaluated().misclassified == [
        Misclassified(32, 7, 2, 0.902, pixels[32]),
        Misclassified(21, 7, 1, 0.8, pixels[21]),
        Misclassified(10, 3, 5, 0.6, pixels[10]),
        Misclassified(33, 9, 5, 0.6, pixels[33]),
    ]
    assert evaluated(CORRECT).misclassified == []


def test_nothing_depends_on_the_batch_size() -> None:
    first, other = evaluated(batch_size=1), evaluated(batch_size=1000)
    assert first.metrics == other.metrics
    assert first.misclassified == other.misclassified


def slanted(count: int) -> Images:
    return Images(torch.cat([bar((index - count / 2) / count) for index in range(count)]), torch.arange(count) % 10)


@pytest.mark.parametrize("tta", [False, True])
def test_the_recipe_says_whether_logits_are_averaged_over_views_and_pixels_are_shown_as_written(tta: bool) -> None:
    torch.manual_seed(1)
    network, written = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), noise(30, seed=1).pixels
    splits = splits_of(slanted(10), noise(10), slanted(30))
    recipe = RECIPE.model_copy(update={"tta": tta})
    result = evaluate(network, splits, written, recipe, TARGETS, Evaluate(batch_size=4, calibration_bins=4), TORCH)
    with_tta, without = (
        Predictor(network, NORMALISATION, TORCH, tta=tta, batch_size=4)(splits.test) for tta in (True, False)
    )
    assert with_tta.loss != pytest.approx(without.loss)
    assert result.metrics.test_loss == pytest.approx((with_tta if tta else without).loss, abs=1e-6)
    assert len(result.misclassified) > 5
    assert all(image.pixels == written[image.image].tolist() for image in result.misclassified)


@pytest.mark.parametrize("deskewed", [False, True])
def test_the_stage_measures_deskewed_images_where_the_recipe_says_so_and_shows_them_as_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deskewed: bool
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr("mnist_cnn.engine.device.keep_freed_memory", lambda: None)
    measured: list[Splits] = []

    def observed(network: nn.Module, splits: Splits, *rest: Any) -> Evaluation:  # noqa: ANN401
        measured.append(splits)
        return evaluate(network, splits, *rest)

    monkeypatch.setattr(stage, "evaluate", observed)
    images = slanted(30)
    for name in ("train", "val", "test"):
        save_images(tmp_path / f"{name}.safetensors", images)
    write_sealed(tmp_path / STATISTICS, NORMALISATION._asdict())
    model = next(name for name, recipe in load(PARAMS).models.items() if recipe.deskew is deskewed)
    save_weights(tmp_path / "weights", build(model))
    outputs = {name: tmp_path / name for name in ("metrics", "confusion", "recalls", "record")}
    stage.main(PARAMS, model, tmp_path, tmp_path / "weights", **outputs)

    expected = deskew(images.pixels) if deskewed else images.pixels
    [splits] = measured
    assert all(torch.equal(splits.images[name].pixels, expected) for name in ("train", "val", "test"))
    shown = json.loads(outputs["record"].read_text())["misclassified"]
    assert shown and all(image["pixels"] == images.pixels[image["image"]].tolist() for image in shown)
