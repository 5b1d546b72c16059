"""The benchmark for real, on small data: every way, in processes of their own."""

import json
import sys
from pathlib import Path

from tests.pipeline.small_project import Project


def test_the_benchmark_measures_every_way(project: Project) -> None:
    project.edit_params(lambda params: params.update(models={"model_5": params["models"]["model_5"]}))
    ended = project.run(
        sys.executable, "-m", "benchmark", "--params", "params.yaml", "--raw", "data/raw", "--splits", "data/split",
        "--repetitions", "1", "--epochs", "2", "--matrix", "64", "--table", "metrics/benchmark.md",
        "--numbers", "metrics/benchmark.json",
    )  # fmt: skip
    assert "[7/7] model_5, dropout 0.1, own: " in ended.stdout
    result = json.loads(project.read("metrics/benchmark.json"))
    assert list(result["models"]) == ["model_5", "model_5, dropout 0.1"]
    for figures in result["models"].values():
        assert figures["speedup"] > 0 and figures["share_of_limit"] > 0
        assert figures["speedup_torch"] > 0 and figures["images_per_second_bfloat16"]["median"] > 0
        assert 100 < figures["peak_memory_mb"] < 1500
    for way in ("own", "classical"):
        assert len(result["time_to_target"][way]["test_accuracies"]) == 2
    assert "| model_5, dropout 0.1 | " in project.read("metrics/benchmark.md")
    assert project.run("git", "status", "--porcelain").stdout.splitlines() == [
        " M params.yaml",
        "?? metrics/benchmark.json",
        "?? metrics/benchmark.md",
        "?? metrics/benchmark_headline.md",
    ]


def test_a_share_of_an_epoch_is_timed_after_two_batches(reproduced: Project, tmp_path: Path) -> None:
    options = {
        "task": "own", "model": "model_5", "epochs": 1, "dropout": 0.0, "params": "params.yaml",
        "splits": "data/split", "weights": str(tmp_path), "engine": "torch", "precision": "bfloat16", "share": 2,
    }  # fmt: skip
    ended = reproduced.run(sys.executable, "-m", "benchmark.worker", json.dumps(options))
    found = json.loads(ended.stdout)
    assert found["share"] == 2 and len(found["ends"]) == 3
    assert sorted([found["began"], *found["ends"]]) == [found["began"], *found["ends"]]
