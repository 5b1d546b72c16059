"""One model, one recipe, one seed: how it is trained, and what is measured."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.sealed import write_sealed
from mnist_cnn.data.images import STATISTICS, Images, save_images
from mnist_cnn.engine import device
from mnist_cnn.engine.execution import computing_class
from mnist_cnn.engine.predictor import Predictions, Predictor
from mnist_cnn.models import build
from mnist_cnn.settings.params import Train
from mnist_cnn.study import trial as module
from mnist_cnn.study.plan import Trial
from mnist_cnn.study.records import data_digest
from mnist_cnn.study.run import run_trial
from mnist_cnn.study.trial import measure
from mnist_cnn.training.fit import Epoch, fit
from tests.helpers import AUGMENTATION, NATIVE, NORMALISATION, RECIPE, bar, noise, splits_of

TWO_EPOCHS = RECIPE.model_copy(update={"epochs": 2, "ema_decay": 0.9})
TRIAL = Trial("model_6", TWO_EPOCHS, 1, None, tested=True)
SPLITS = splits_of(noise(96, 0), noise(50, 1), noise(70, 2))


def test_a_trial_is_trained_and_measured_as_the_stages_do_it_and_has_every_figure() -> None:
    recipe = TWO_EPOCHS.model_copy(update={"tta": True, "dropout": 0.1, "augmentation": AUGMENTATION})
    torch.manual_seed(3)
    network = build("model_6", 0.1)

    def predicted(network: nn.Module, split: str) -> Predictions:
        return Predictor(network, NORMALISATION, NATIVE, tta=True, batch_size=32)(SPLITS.images[split])

    def accuracy(network: nn.Module, split: str) -> float:
        return round(predicted(network, split).accuracy, 4)

    epochs = []

    def on_epoch(epoch: Epoch, result: nn.Module) -> None:
        epochs.append((accuracy(network, "test"), accuracy(result, "test"), accuracy(network, "val")))

    fit(network, SPLITS, recipe, seed=3, execution=NATIVE, on_epoch=on_epoch)
    raw, final, val_raw = map(list, zip(*epochs, strict=True))
    told: list[int] = []
    record = measure(TRIAL._replace(recipe=recipe, seed=3), SPLITS, NATIVE, told.append)
    assert told == [1, 2]
    assert record == {
        "parameters": 7918,
        "epochs": 2,
        "engine": "native",
        "computed_by": computing_class(NATIVE),
        "train_accuracy": accuracy(network, "train"),
        "val_accuracy": accuracy(network, "val"),
        "val_accuracy_raw": val_raw[-1],
        "test_accuracy": accuracy(network, "test"),
        "test_images": 70,
        "test_by_epoch": {"raw": raw, "final": final},
        "misclassified": [i for i, correct in enumerate(predicted(network, "test").correct) if not correct],
    }
    assert record["test_accuracy"] == final[-1]
    assert record["test_accuracy"] == pytest.approx(100 * (1 - len(record["misclassified"]) / 70), abs=1e-4)


def test_raw_weights_are_the_last_steps_and_the_final_ones_their_ema() -> None:
    averaged = measure(TRIAL, SPLITS, NATIVE, print)
    plain = measure(TRIAL._replace(recipe=TWO_EPOCHS.model_copy(update={"ema_decay": 0.0})), SPLITS, NATIVE, print)
    assert plain["test_by_epoch"]["raw"] == plain["test_by_epoch"]["final"]
    assert averaged["test_by_epoch"]["raw"] == plain["test_by_epoch"]["raw"]
    assert averaged["val_accuracy_raw"] == plain["val_accuracy_raw"] == plain["val_accuracy"]
    # Half-trained weights and their average do not agree on the accuracy of noise.
    assert averaged["test_by_epoch"]["final"] != averaged["test_by_epoch"]["raw"]


@pytest.mark.parametrize("tta", [False, True])
def test_every_figure_is_with_test_time_augmentation_if_the_recipe_has_it(
    tta: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    def watched(network: nn.Module, **options: Any) -> Predictor:  # noqa: ANN401
        used.append(options["tta"])
        return Predictor(network, **options)

    monkeypatch.setattr(module, "Predictor", watched)
    measure(TRIAL._replace(recipe=TWO_EPOCHS.model_copy(update={"tta": tta})), SPLITS, NATIVE, print)
    assert len(used) >= 7 and set(used) == {tta}


def test_the_same_trial_gives_the_same_record_and_another_seed_does_not() -> None:
    first, again = (measure(TRIAL, SPLITS, NATIVE, print) for _ in range(2))
    assert first == again
    assert first["misclassified"] != measure(TRIAL._replace(seed=2), SPLITS, NATIVE, print)["misclassified"]


class Killed(Exception):
    """The trial's process ends here."""


def test_a_trial_that_was_ended_goes_on_to_the_same_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_CNN_CACHE", str(tmp_path))
    expected, calls = measure(TRIAL, SPLITS, NATIVE, print), []

    def die(epoch: int) -> None:
        calls.append(epoch)
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        measure(TRIAL, SPLITS, NATIVE, die, "this trial")
    assert measure(TRIAL, SPLITS, NATIVE, calls.append, "this trial") == expected
    assert calls == [1, 2, 2]
    assert list((tmp_path / "training").iterdir()) == []


def test_recipes_that_compete_do_not_see_the_test_set() -> None:
    trial = TRIAL._replace(tested=False)
    assert set(module.splits_of(trial)) == {"train", "val"} == set(module.splits_of(TRIAL)) - {"test"}
    record = measure(trial, splits_of(SPLITS.train, SPLITS.val), NATIVE, print)
    assert not [name for name in record if "test" in name or name == "misclassified"]


def test_widths_are_those_of_the_network() -> None:
    narrow = TRIAL._replace(widths=(2, 2, 2, 2, 2, 2))
    assert measure(narrow, SPLITS, NATIVE, print)["parameters"] == 18 + 5 * 36 + 6 * 4 + 30


def test_images_are_deskewed_if_the_recipe_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process of its own prepares itself; this one is shared with other tests.
    monkeypatch.setattr(device, "keep_freed_memory", lambda: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setenv("MNIST_CNN_CACHE", str(tmp_path / "cache"))
    # Two classes that differ by their slant, and by nothing else.
    images = Images(torch.cat([bar(0.5), bar(-0.5)]).repeat(48, 1, 1), torch.arange(96) % 2)
    for name in ("train", "val", "test"):
        save_images(tmp_path / f"{name}.safetensors", images)
    write_sealed(tmp_path / STATISTICS, NORMALISATION._asdict())
    shared, computing = Train(seed=1, device="cpu", engine="native", precision="float32"), tmp_path / "computing.txt"
    computing.touch()
    for deskew, accuracy in ((False, 100), (True, 50)):
        recipe = RECIPE.model_copy(update={"epochs": 8, "tta": True, "deskew": deskew})
        trial, data = TRIAL._replace(recipe=recipe), data_digest(tmp_path, computing)
        record = run_trial(trial, data, tmp_path, computing, shared, 1, print)
        assert [record[f"{split}_accuracy"] for split in ("train", "val", "test")] == [accuracy] * 3
        assert len(record["misclassified"]) == 96 * (1 - accuracy / 100)
    with pytest.raises(InputError, match=f"^{tmp_path} .*changed"):
        run_trial(trial, "other images", tmp_path, computing, shared, 1, print)
