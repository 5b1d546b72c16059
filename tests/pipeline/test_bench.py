"""What the benchmark measures, by a real worker on small data. Unit tests hold how it is put together."""

import json
import sys
from pathlib import Path

import pytest

from tests.pipeline.small_project import Project

# All in one process, where the benchmark has one for each: loading PyTorch takes most of the time.
PROGRAM = """
import json, sys
from benchmark.worker import TASKS
print(json.dumps([TASKS[options.pop("task")](**options) for options in json.loads(sys.argv[1])]))
"""


@pytest.fixture(scope="module")
def measured(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What a worker finds by task: a share of an epoch in each way, and the accuracies of one way's weights."""
    weights = tmp_path_factory.mktemp("weights")
    given: dict[str, object] = {"model": "model_5", "models": ["model_5"], "epochs": 1, "dropout": 0.1, "share": 2}
    given |= {"params": "params.yaml", "raw": "data/raw", "splits": "data/split", "matrix": 64, "capture": False}
    tasks: dict[str, dict[str, object]] = {
        "native": {"task": "own", "engine": "native"},
        "bfloat16": {"task": "own", "engine": "torch", "precision": "bfloat16"},
        "classical": {"task": "classical"},
        "tested": {"task": "tested", "weights": str(weights / "classical"), "classically": True},
        "limits": {"task": "limits"},
        "profiled": {"task": "profiled"},
    }
    options = [given | {"weights": str(weights / name)} | task for name, task in tasks.items()]
    ended = reproduced.run(sys.executable, "-c", PROGRAM, json.dumps(options))
    return dict(zip(tasks, json.loads(ended.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("way", ["native", "bfloat16", "classical"])
def test_a_share_of_an_epoch_is_timed_after_two_batches(measured: dict[str, dict], way: str) -> None:
    run = measured[way]
    assert run["share"] == 2 and len(run["ends"]) == 3
    assert sorted([run["began"], *run["ends"]]) == [run["began"], *run["ends"]]
    assert 100 < run["peak_memory_mb"] < 2000


def test_each_epochs_weights_are_tested_and_the_limits_are_known(measured: dict[str, dict]) -> None:
    assert len(measured["tested"]["test_accuracies"]) == 3
    assert all(0 <= accuracy <= 100 for accuracy in measured["tested"]["test_accuracies"])
    assert min(measured["limits"]["speeds"].values()) > 0 and measured["limits"]["flops"]["model_5"] > 0
    assert measured["profiled"]["ms"] > 0


def test_the_entry_point_names_what_is_missing(tmp_path: Path, reproduced: Project) -> None:
    options = ["--params", "params.yaml", "--raw", str(tmp_path / "raw"), "--splits", "data/split"]
    options += ["--repetitions", "1", "--epochs", "1", "--matrix", "64", "--table", "t.md", "--numbers", "n.json"]
    ended = reproduced.run(sys.executable, "-m", "benchmark", *options, check=False)
    assert ended.returncode == 1 and ended.stderr.startswith(f"error: {tmp_path / 'raw'}: ")
