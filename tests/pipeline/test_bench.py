"""The benchmark for real, on small data: every way, in processes of their own."""

import json
import sys

import pytest

from tests.pipeline.small_project import Project


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's threads wait for each other, and for those of other tests that compute at the same time."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_the_benchmark_measures_every_way(project: Project) -> None:
    project.edit_params(lambda params: params.update(models={"model_5": params["models"]["model_5"]}))
    ended = project.run(
        sys.executable, "-m", "benchmark", "--params", "params.yaml", "--raw", "data/raw",
        "--splits", "data/split", "--repetitions", "1", "--table", "metrics/benchmark.md",
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
        assert len(result["time_to_target"][way]["test_accuracies"]) == 15
        assert result["time_to_target"][way]["test_accuracies"][-1] > 50
    assert "| model_5, dropout 0.1 | " in project.read("metrics/benchmark.md")
    assert project.run("git", "status", "--porcelain").stdout.splitlines() == [
        " M params.yaml",
        "?? metrics/benchmark.json",
        "?? metrics/benchmark.md",
    ]


@pytest.mark.parametrize("task", ["classical", "own"])
def test_a_share_of_an_epoch_is_timed_after_two_batches(project: Project, task: str) -> None:
    options = {
        "task": task, "model": "model_5", "epochs": 1, "dropout": 0.0, "params": "params.yaml", "raw": "data/raw",
        "parts": "data/split", "weights": "weights", "engine": "torch", "precision": "bfloat16", "share": 2,
    }  # fmt: skip
    ended = project.run(sys.executable, "-m", "benchmark.worker", json.dumps(options))
    found = json.loads(ended.stdout)
    assert found["share"] == 2 and len(found["ends"]) == 3
    assert sorted([found["began"], *found["ends"]]) == [found["began"], *found["ends"]]
