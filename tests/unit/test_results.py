"""Results as the stages leave them and the report reads them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.sealed import write_sealed
from mnist_cnn.data.images import save_images
from mnist_cnn.engine.checkpoint import save_weights
from mnist_cnn.models import build
from mnist_cnn.report.comparison import comparison_markdown
from mnist_cnn.report.results import load_result
from mnist_cnn.settings.params import load
from mnist_cnn.training.fit import Epoch
from stages import evaluate
from tests.helpers import ROOT, noise
from tests.results import metrics, model_result

HISTORY = b"epoch,learning_rate,train_loss,train_accuracy,val_loss,val_accuracy\n1,0.1,0.5,90.0,0.2,95.0\n"
RECORD: dict[str, Any] = {
    "metrics": metrics().as_dict(),
    "receptive_field_px": 20,
    "confusion": [[1]],
    "misclassified": [],
}


def test_the_interval_is_around_the_accuracy_on_the_test_images() -> None:
    model = model_result(mistakes=[(8, 3, 100)])
    assert model.test_images == 10_000
    assert model.interval == pytest.approx((98.7853, 99.1771), abs=1e-4)


def test_what_the_stages_write_is_what_the_report_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    for seed, split in enumerate(("train", "val", "test")):
        save_images(tmp_path / f"{split}.safetensors", noise(20, seed))
    write_sealed(tmp_path / "statistics.json", {"mean": 0.13, "std": 0.31})
    save_weights(tmp_path / "weights.safetensors", build("model_1"))
    (tmp_path / "model_1.csv").write_bytes(HISTORY)
    evaluate.main(
        params=ROOT / "params.yaml",
        model="model_1",
        splits=tmp_path,
        weights=tmp_path / "weights.safetensors",
        metrics=tmp_path / "metrics.json",
        confusion=tmp_path / "confusion.csv",
        recalls=tmp_path / "recalls.csv",
        record=tmp_path / "model_1.json",
    )
    model = load_result("model_1", tmp_path, tmp_path)
    assert model.name == "model_1"
    assert model.metrics.as_dict() == json.loads((tmp_path / "metrics.json").read_text())
    pairs = pd.read_csv(tmp_path / "confusion.csv")
    assert list(pairs) == ["actual", "predicted", "count"]
    assert pairs.to_numpy().tolist() == [[i, j, model.confusion[i][j]] for i in range(10) for j in range(10)]
    assert model.test_images == 20
    assert len(model.misclassified) == 20 - sum(model.confusion[digit][digit] for digit in range(10)) > 0
    first = model.misclassified[0]
    assert first.pixels == noise(20, 2).pixels[first.image].tolist()
    assert model.receptive_field_px is not None and model.receptive_field_px > 1
    assert model.history.to_csv(index=False).encode() == HISTORY
    assert tuple(model.history) == Epoch._fields
    comparison_markdown([model], load(ROOT / "params.yaml"))


def without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != key}


@pytest.mark.parametrize(
    ("record", "history"),
    [
        (None, HISTORY),
        *((without(RECORD, key), HISTORY) for key in RECORD),
        (RECORD | {"metrics": without(RECORD["metrics"], "engine")}, HISTORY),
        (RECORD | {"metrics": RECORD["metrics"] | {"other": 1}}, HISTORY),
        (RECORD | {"misclassified": [{"label": 1}]}, HISTORY),
        (RECORD, None),
        (RECORD, b""),
        (RECORD, HISTORY + b"2,0.1,0.5,90.0,0.2,95.0,99\n"),
        (RECORD, HISTORY + b"3,0.1,0.5,90.0,0.2,95.0\n"),
        (RECORD, HISTORY.replace(b"95.0", b"nan")),
        (RECORD, HISTORY.replace(b"95.0", b"many")),
        (RECORD, b"epoch\n\xff\n"),
    ],
)
def test_a_missing_or_damaged_result_is_refused_in_a_line_that_names_the_file(
    tmp_path: Path, record: dict[str, Any] | None, history: bytes | None
) -> None:
    files = tmp_path / "model_1.json", tmp_path / "model_1.csv"
    if record is not None:
        write_sealed(files[0], record)
    if history is not None:
        files[1].write_bytes(history)
    with pytest.raises(InputError) as error:
        load_result("model_1", tmp_path, tmp_path)
    message = str(error.value)
    assert message.startswith(f"{files[record is RECORD]}: ") and "dvc repro" in message
    assert len(message.splitlines()) == 1
