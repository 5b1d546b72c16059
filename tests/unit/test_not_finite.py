"""Training and evaluation that leave the finite numbers: the stages say so in a line, and write nothing."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from mnist_cnn.common import cli
from mnist_cnn.common.sealed import write_sealed
from mnist_cnn.data.images import STATISTICS, Images, save_images
from mnist_cnn.engine import device
from mnist_cnn.engine.checkpoint import save_weights
from mnist_cnn.models import build
from stages import evaluate, train
from tests.helpers import ROOT, noise

Run = Callable[..., None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a stage as from a command line, with the options given, of a model."""
    # A process of its own prepares itself; this one is shared with other tests.
    monkeypatch.setattr(device, "keep_freed_memory", lambda: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def called(main: Callable[..., None], model: str, **options: Path) -> None:
        given = [item for name, path in options.items() for item in (f"--{name}", str(path))]
        monkeypatch.setattr(sys, "argv", ["stage", "--model", model, *given])
        cli.run(main)

    return called


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """Small splits without the digit 9."""
    folder = tmp_path / "splits"
    for seed, name in enumerate(("train", "val")):
        save_images(folder / f"{name}.safetensors", Images(noise(40, seed).pixels, torch.arange(40) % 9))
    write_sealed(folder / STATISTICS, {"mean": 0.13, "std": 0.31})
    return folder


def evaluate_by(run: Run, splits: Path, network: nn.Module, results: Path) -> None:
    """Evaluate model_5 with the network's weights."""
    weights = splits / "weights.safetensors"
    save_weights(weights, network)
    outputs = {name: results / f"{name}.json" for name in ("metrics", "confusion", "recalls", "record")}
    run(evaluate.main, "model_5", params=ROOT / "params.yaml", splits=splits, weights=weights, **outputs)


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_a_training_that_diverges_says_where_and_what_to_change(
    run: Run, splits: Path, tmp_path: Path, engine: str
) -> None:
    params, results = tmp_path / "params.yaml", tmp_path / "results"
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["train"] |= {"device": "cpu", "engine": engine}
    settings["models"]["model_1"] |= {"max_lr": 10.0, "adaptive_clipping": 0.0}
    params.write_text(yaml.safe_dump(settings))
    outputs = {"weights": results / "weights.safetensors", "history": results / "history.csv"}
    with pytest.raises(SystemExit, match=r"^error: model_1: epoch \d+, .*learning rate.* max_lr \(10\).*$"):
        run(train.main, "model_1", params=params, splits=splits, **outputs)
    assert not outputs["weights"].exists()


def test_weights_that_are_not_finite_are_not_measured(run: Run, splits: Path, tmp_path: Path) -> None:
    network, results = build("model_5"), tmp_path / "results"
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(SystemExit, match="^error: model_5: .*not finite.*$"):
        evaluate_by(run, splits, network, results)
    assert not results.exists()


def test_a_metrics_file_is_json_although_a_class_has_no_image(run: Run, splits: Path, tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    evaluate_by(run, splits, build("model_5"), tmp_path)
    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    measured = json.loads((tmp_path / "record.json").read_text(), parse_constant=refuse)["metrics"]
    assert 0 <= measured["worst_class_recall"] <= 100
    assert measured["engine"] == "native"
