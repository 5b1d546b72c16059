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
from mnist_cnn.evaluation.evaluate import Evaluation, Misclassified, checked_predictor, evaluate, on_test_set
from mnist_cnn.evaluation.metrics import OnTestSet, missed_targets, targets_met
from mnist_cnn.models import build
from mnist_cnn.settings.params import Evaluate, Targets, load
from stages import evaluate as stage
from tests.helpers import NORMALISATION, RECIPE, ROOT, TORCH, bar, noise, splits_of

PARAMS = ROOT / "params.yaml"
TARGETS = Targets(test_accuracy=99.4, max_epochs=15, parameters_below=8000)

# True class, predicted class, its probability in steps of 1/255.
Case = tuple[int, int, int]
SURE, UNSURE = 204, 153
CORRECT: list[Case] = [(label, label, SURE) for label in range(10)]
VAL: list[Case] = [*CORRECT, (3, 5, UNSURE), *CORRECT, (7, 1, SURE), *CORRECT, (7, 2, 230), (9, 5, UNSURE)]


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


def predictor(network: nn.Module, batch_size: int = 4) -> Predictor:
    return Predictor(network, Normalisation(0, 1), TORCH, tta=False, batch_size=batch_size)


def evaluated(val: list[Case] = VAL, batch_size: int = 4) -> Evaluation:
    images = {"train": images_of([*CORRECT, (4, 9, SURE)]), "val": images_of(val)}
    splits, network = Splits(images, Normalisation(0, 1)), AsToldByPixels()
    predict = predictor(network, batch_size)
    return evaluate(network, predict, splits, splits.val.pixels, epochs=15, bins=4, engine="torch")


def seen_on(cases: list[Case], batch_size: int = 4) -> OnTestSet:
    return on_test_set(predictor(AsToldByPixels(), batch_size), images_of(cases), {})


def test_the_metrics_are_those_computed_by_hand_in_their_order_and_rounded() -> None:
    sure, surest = SURE / 255, 230 / 255
    loss = -30 * math.log(sure) - 2 * math.log((1 - 0.6) / 9) - math.log((1 - sure) / 9) - math.log((1 - surest) / 9)
    # Two intervals are in use: the two unsure images, and all others.
    distance = 2 * 0.6 + abs(31 * sure + surest - 30)
    expected = {
        "parameters": 7,
        "epochs": 15,
        "train_accuracy": 90.9091,
        "val_accuracy": 88.2353,
        "val_loss": round(loss / 34, 6),
        "calibration_error": round(100 * distance / 34, 4),
        "worst_class_recall": 60,
        "engine": "torch",
    }
    metrics = evaluated().metrics.as_dict()
    assert metrics == expected
    assert list(metrics) == list(expected)
    assert [type(value) for value in metrics.values()] == [int, int, *[float] * 5, str]
    assert list(evaluated().metrics.compared()) == ["parameters", "train_accuracy", "val_accuracy", "val_loss"]
    assert seen_on(VAL) == OnTestSet(34, 30, round(loss / 34, 6), {})
    assert seen_on(VAL).compared() == {"test_accuracy": 88.2353, "test_loss": round(loss / 34, 6)}


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
    targets, metrics = TARGETS.model_copy(update=changed), evaluated(CORRECT).metrics
    met = targets_met(metrics, seen_on(CORRECT), targets)
    assert list(met.values()) == [accuracy, epochs, parameters]
    assert len(missed_targets(met, targets)) == 3 - sum([accuracy, epochs, parameters])
    unknown = targets_met(metrics, None, targets)
    assert list(unknown.values()) == [None, epochs, parameters]
    assert len(missed_targets(unknown, targets)) == 2 - sum([epochs, parameters])


# 100 * (942 / 1000) is a little less than 94.2.
@pytest.mark.parametrize("correct", [942, 949, 994])
def test_an_accuracy_that_equals_its_target_meets_it(correct: int) -> None:
    result = seen_on([(1, 1, SURE)] * correct + [(1, 2, SURE)] * (1000 - correct), batch_size=1000)
    assert result.accuracy == correct / 10
    targets = TARGETS.model_copy(update={"test_accuracy": correct / 10})
    assert targets_met(evaluated().metrics, result, targets)["meets_accuracy_target"]


def test_the_confusion_is_that_of_the_validation_split() -> None:
    expected = 3 * torch.eye(10, dtype=torch.int64)
    expected[3, 5], expected[9, 5], expected[7, 1], expected[7, 2] = 1, 1, 1, 1
    assert torch.equal(evaluated().confusion, expected)


def test_misclassified_images_are_listed_the_most_probable_first_and_else_in_order() -> None:
    pixels = images_of(VAL).pixels.tolist()
    # The other nine classes are equally likely.
    assert evaluated().misclassified == [
        Misclassified(32, 7, [(2, 0.902), (0, 0.0109), (1, 0.0109)], pixels[32]),
        Misclassified(21, 7, [(1, 0.8), (0, 0.0222), (2, 0.0222)], pixels[21]),
        Misclassified(10, 3, [(5, 0.6), (0, 0.0444), (1, 0.0444)], pixels[10]),
        Misclassified(33, 9, [(5, 0.6), (0, 0.0444), (1, 0.0444)], pixels[33]),
    ]
    assert [image.predicted for image in evaluated().misclassified] == [2, 1, 5, 5]
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
    splits = splits_of(slanted(10), slanted(30))
    recipe, measure = RECIPE.model_copy(update={"tta": tta}), Evaluate(batch_size=4, calibration_bins=4)
    predict = checked_predictor(network, NORMALISATION, splits.val, recipe, measure, TORCH)
    result = evaluate(network, predict, splits, written, recipe.epochs, 4, "torch")
    with_tta, without = (
        Predictor(network, NORMALISATION, TORCH, tta=tta, batch_size=4)(splits.val) for tta in (True, False)
    )
    assert with_tta.loss != pytest.approx(without.loss)
    assert result.metrics.val_loss == pytest.approx((with_tta if tta else without).loss, abs=1e-6)
    assert len(result.misclassified) > 5
    assert all(image.pixels == written[image.image].tolist() for image in result.misclassified)


@pytest.mark.parametrize("deskewed", [False, True])
def test_the_stage_measures_deskewed_images_where_the_recipe_says_so_and_shows_them_as_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deskewed: bool
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr("mnist_cnn.engine.device.keep_freed_memory", lambda: None)
    measured: list[Splits] = []

    def observed(network: nn.Module, predict: Predictor, splits: Splits, *rest: Any) -> Evaluation:  # noqa: ANN401
        measured.append(splits)
        return evaluate(network, predict, splits, *rest)

    monkeypatch.setattr(stage, "evaluate", observed)
    images = slanted(30)
    for name in ("train", "val"):
        save_images(tmp_path / f"{name}.safetensors", images)
    write_sealed(tmp_path / STATISTICS, NORMALISATION._asdict())
    model = next(name for name, recipe in load(PARAMS).models.items() if recipe.deskew is deskewed)
    save_weights(tmp_path / "weights", build(model))
    outputs = {name: tmp_path / name for name in ("metrics", "confusion", "recalls", "record")}
    stage.main(PARAMS, model, tmp_path, tmp_path / "weights", **outputs)

    expected = deskew(images.pixels) if deskewed else images.pixels
    [splits] = measured
    assert all(torch.equal(splits.images[name].pixels, expected) for name in ("train", "val"))
    shown = json.loads(outputs["record"].read_text())["misclassified"]
    assert shown and all(image["pixels"] == images.pixels[image["image"]].tolist() for image in shown)
