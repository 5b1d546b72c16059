"""The benchmark for real, on small data: both ways, in processes of their own."""

import json
import sys

from tests.pipeline.small_project import Project


def test_the_benchmark_measures_both_ways(project: Project) -> None:
    project.edit_params(lambda params: params.update(models={"model_5": params["models"]["model_5"]}))
    ended = project.run(
        sys.executable, "-m", "stages.bench", "--params", "params.yaml", "--raw", "data/raw",
        "--parts", "data/split", "--repetitions", "1", "--table", "metrics/benchmark.md",
        "--numbers", "metrics/benchmark.json",
    )  # fmt: skip
    assert "[3/3] model_5, dropout 0.1, own: " in ended.stdout
    result = json.loads(project.read("metrics/benchmark.json"))
    assert list(result["models"]) == ["model_5", "model_5, dropout 0.1"]
    for figures in result["models"].values():
        assert figures["speedup"] > 0 and figures["share_of_limit"] > 0
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
