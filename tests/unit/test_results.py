"""Results as the stages leave them and the report reads them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.sealed import write_sealed
from mnist_cnn.data.images import save_images
from mnist_cnn.engine.checkpoint import save_weights
from mnist_cnn.evaluation.metrics import OnTestSet
from mnist_cnn.models import build
from mnist_cnn.report.comparison import comparison_markdown
from mnist_cnn.report.results import load_result
from mnist_cnn.settings.params import load
from mnist_cnn.training.fit import Epoch
from stages import evaluate
from tests.helpers import MNIST, ROOT, noise
from tests.results import metrics

RECORD: dict[str, Any] = {
    "metrics": metrics().as_dict(),
    "receptive_field_px": 20,
    "confusion": [[1]],
    "misclassified": [],
}
EXPORTED: dict[str, Any] = {"opset": 18, "bytes": 1, "images": 2, "different": 0, "largest_difference": 0.0}
TESTED: dict[str, Any] = {"tested": {"images": 10_000, "correct": 9_900, "loss": 0.02, "robustness": {"blur": 98.0}}}
# As many epochs as RECORD has.
HISTORY = b"epoch,learning_rate,train_loss,train_accuracy,val_loss,val_accuracy\n" + b"".join(
    b"%d,0.1,0.5,90.0,0.2,95.0\n" % epoch for epoch in range(1, RECORD["metrics"]["epochs"] + 1)
)
CASES = 200


def test_the_interval_is_around_the_accuracy_on_the_test_images() -> None:
    test = OnTestSet(10_000, 9_900, 0.02, {})
    assert test.accuracy == 99
    assert test.interval == pytest.approx((98.7853, 99.1771), abs=1e-4)


def test_what_the_stages_write_is_what_the_report_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    for seed, split in enumerate(("train", "val")):
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
    write_sealed(tmp_path / "test/model_1.json", TESTED)
    write_sealed(tmp_path / "export/model_1.json", EXPORTED)
    model = load_result("model_1", tmp_path, tmp_path / "test", tmp_path / "export", tmp_path)
    assert model.name == "model_1"
    assert model.metrics.compared() == json.loads((tmp_path / "metrics.json").read_text())
    assert model.exported._asdict() == EXPORTED
    assert model.test is not None and model.test._asdict() == TESTED["tested"]
    pairs = pd.read_csv(tmp_path / "confusion.csv")
    assert list(pairs) == ["actual", "predicted", "count"]
    assert pairs.to_numpy().tolist() == [[i, j, model.confusion[i][j]] for i in range(10) for j in range(10)]
    assert len(model.misclassified) == 20 - sum(model.confusion[digit][digit] for digit in range(10)) > 0
    first = model.misclassified[0]
    assert first.pixels == noise(20, 1).pixels[first.image].tolist()
    assert model.receptive_field_px is not None and model.receptive_field_px > 1
    assert model.history.to_csv(index=False).encode() == HISTORY
    assert tuple(model.history) == Epoch._fields
    comparison_markdown([model], load(ROOT / "params.yaml").targets, {}, MNIST)


@pytest.mark.parametrize("content", [None, {}, {"bytes": 1}])
def test_what_is_known_of_an_onnx_file_is_whole_or_refused(tmp_path: Path, content: dict[str, int] | None) -> None:
    write_sealed(tmp_path / "model_1.json", RECORD)
    write_sealed(tmp_path / "test/model_1.json", TESTED)
    (tmp_path / "model_1.csv").write_bytes(HISTORY)
    if content is not None:
        write_sealed(tmp_path / "export/model_1.json", content)
    with pytest.raises(InputError, match="export.*dvc repro"):
        load_result("model_1", tmp_path, tmp_path / "test", tmp_path / "export", tmp_path)


def without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != key}


@pytest.mark.parametrize(
    ("record", "tested", "history"),
    [
        (None, TESTED, HISTORY),
        *((without(RECORD, key), TESTED, HISTORY) for key in RECORD),
        (RECORD | {"metrics": without(RECORD["metrics"], "engine")}, TESTED, HISTORY),
        (RECORD | {"metrics": RECORD["metrics"] | {"other": 1}}, TESTED, HISTORY),
        (RECORD | {"misclassified": [{"label": 1}]}, TESTED, HISTORY),
        (RECORD, None, HISTORY),
        (RECORD, {}, HISTORY),
        (RECORD, {"tested": {"images": 1}}, HISTORY),
        (RECORD, TESTED, None),
        (RECORD, TESTED, b""),
        (RECORD, TESTED, HISTORY[: HISTORY.rindex(b"\n", 0, -1) + 1]),
        (RECORD, TESTED, HISTORY + b"2,0.1,0.5,90.0,0.2,95.0,99\n"),
        (RECORD, TESTED, HISTORY + b"3,0.1,0.5,90.0,0.2,95.0\n"),
        (RECORD, TESTED, HISTORY.replace(b"95.0", b"nan")),
        (RECORD, TESTED, HISTORY.replace(b"95.0", b"many")),
        (RECORD, TESTED, b"epoch\n\xff\n"),
    ],
)
def test_a_missing_or_damaged_result_is_refused_in_a_line_that_names_the_file(
    tmp_path: Path, record: dict[str, Any] | None, tested: dict[str, Any] | None, history: bytes | None
) -> None:
    files = tmp_path / "evaluation/model_1.json", tmp_path / "test/model_1.json", tmp_path / "model_1.csv"
    write_sealed(tmp_path / "export/model_1.json", EXPORTED)
    for file, content in zip(files, (record, tested), strict=False):
        if content is not None:
            write_sealed(file, content)
    if history is not None:
        files[2].write_bytes(history)
    with pytest.raises(InputError) as error:
        load_result("model_1", files[0].parent, files[1].parent, tmp_path / "export", tmp_path)
    message = str(error.value)
    damaged = files[0] if record is not RECORD else files[1] if tested is not TESTED else files[2]
    assert str(damaged) in message and "dvc repro" in message
    assert len(message.splitlines()) == 1


@settings(max_examples=CASES)
@given(st.data())
def test_whatever_a_history_holds_it_is_read_whole_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    for kind, content in (("evaluation", RECORD), ("test", TESTED), ("export", EXPORTED)):
        write_sealed(folder / kind / "model_1.json", content)
    begin = data.draw(st.integers(0, len(HISTORY)))
    end = data.draw(st.integers(begin, min(begin + 20, len(HISTORY))))
    (folder / "model_1.csv").write_bytes(HISTORY[:begin] + data.draw(st.binary(max_size=20)) + HISTORY[end:])
    try:
        read = load_result("model_1", folder / "evaluation", folder / "test", folder / "export", folder).history
    except InputError as error:
        assert str(folder / "model_1.csv") in str(error) and len(str(error).splitlines()) == 1
        return
    assert read["epoch"].tolist() == list(range(1, RECORD["metrics"]["epochs"] + 1))
    assert tuple(read) == Epoch._fields and np.isfinite(read).all(axis=None)
