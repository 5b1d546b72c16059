"""Runs and measurements that leave the finite numbers: the stages say so in a line, and write nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mnist_cnn.engine.checkpoint import save_weights
from mnist_cnn.data import Images, save_images
from mnist_cnn.models import build

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Small parts without the digit 9."""
    folder = tmp_path / "parts"
    for seed, name in enumerate(("train", "val", "test")):
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(256, (40, 28, 28), dtype=torch.uint8, generator=generator)
        save_images(folder / f"{name}.safetensors", Images(pixels, torch.arange(40) % 9))
    (folder / "statistics.json").write_text('{"mean": 0.13, "std": 0.31}')
    return folder


def run(stage: str, params: Path, model: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"stages.{stage}", "--params", params, "--model", model, *options]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def evaluated(parts: Path, network: nn.Module, model: str, results: Path) -> subprocess.CompletedProcess[str]:
    weights = parts / "weights.safetensors"
    save_weights(weights, network)
    outputs = [
        item
        for name in ("metrics", "confusion", "recalls", "record")
        for item in (f"--{name}", results / f"{name}.json")
    ]
    return run("evaluate", ROOT / "params.yaml", model, "--splits", parts, "--weights", weights, *outputs)


def told_in_a_line(ended: subprocess.CompletedProcess[str], results: Path) -> str:
    assert ended.returncode == 1
    assert not results.exists()
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in ended.stderr
    return line


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_a_training_that_diverges_says_where_and_what_to_change(parts: Path, tmp_path: Path, engine: str) -> None:
    params, results = tmp_path / "params.yaml", tmp_path / "results"
    settings = (ROOT / "params.yaml").read_text().replace("engine: auto", f"engine: {engine}")
    params.write_text(settings.replace("max_lr: 0.015", "max_lr: 10.0").replace("adaptive_clipping: 0.2", "adaptive_clipping: 0.0"))
    ended = run(
        *("train", params, "model_1", "--train", parts / "train.safetensors", "--val", parts / "val.safetensors"),
        *("--statistics", parts / "statistics.json"),
        *("--weights", results / "weights.safetensors", "--history", results / "history.csv"),
    )
    line = told_in_a_line(ended, results)
    assert "model_1: epoch " in line and "learning rate" in line and "max_lr (10)" in line


def test_weights_that_are_not_finite_are_measured_by_nobody(parts: Path, tmp_path: Path) -> None:
    network = build("model_5")
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    assert "not finite" in told_in_a_line(
        evaluated(parts, network, "model_5", tmp_path / "results"), tmp_path / "results"
    )


def test_a_metrics_file_is_json_although_a_class_has_no_test_image(parts: Path, tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    ended = evaluated(parts, build("model_5"), "model_5", tmp_path)
    assert ended.returncode == 0, ended.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert 0 <= metrics["worst_class_recall"] <= 100
    assert metrics["engine"] == "native"
