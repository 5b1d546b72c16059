"""The pipeline for real, on small data."""

import json
import signal
import sys

import pandas as pd
import pytest

from tests.pipeline.small_project import MODELS, Project, stages_of
from tests.results import metrics


def test_every_promised_file_is_there_and_no_temporary_one(reproduced: Project) -> None:
    project = reproduced
    for name in MODELS:
        assert list(json.loads(project.read(f"metrics/{name}.json"))) == list(metrics().compared())
        assert list(json.loads(project.read(f"metrics/test/{name}.json"))) == ["test_accuracy", "test_loss"]
        history = pd.read_csv(project.folder / f"plots/history/{name}.csv")
        assert list(history) == ["epoch", "learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
        assert history["epoch"].tolist() == [1]
        # Validated in training as it is evaluated afterwards.
        assert json.loads(project.read(f"metrics/{name}.json"))["val_accuracy"] == history["val_accuracy"].iloc[-1]
        confusion = pd.read_csv(project.folder / f"plots/confusion/{name}.csv")
        assert len(confusion) == 100 and confusion["count"].sum() == 100
        assert len(pd.read_csv(project.folder / f"plots/recall/{name}.csv")) == 10
        assert (project.folder / f"checkpoints/{name}.safetensors").is_file()
        assert f"| **{name}** |" in project.read("metrics/comparison.md")
        assert f"| {name} |" in project.read("metrics/results.md")
    assert pd.read_csv(project.folder / "metrics/comparison.csv")["model"].tolist() == list(MODELS)
    assert json.loads(project.read("metrics/selected.json"))["model"] == "model_5"
    pictures = {path.stem for path in (project.folder / "plots/pictures").glob("*.png")}
    assert pictures == {"accuracy", "loss", "parameters", "confusion", "misclassified", "robustness", "augmented"}
    assert not list(project.folder.rglob(".*.part*"))


def test_the_statistics_of_the_split_are_recorded(reproduced: Project) -> None:
    recorded = json.loads(reproduced.read("data/split/statistics.json"))
    assert recorded["images"] == {"train": 300, "val": 100, "test": 100}
    assert recorded["images_per_class"]["test"] == [10] * 10
    assert 0 < recorded["mean"] < 1 and 0 < recorded["std"] < 1


def test_stages_run_again_one_by_one_give_the_same_bytes(project: Project) -> None:
    # The project was made with two models at a time, and in forks of a process that had loaded PyTorch.
    before = project.read("dvc.lock")
    stages = ["split", *stages_of("model_5"), "report"]
    assert project.repro("--force", "--single-item", *stages, env=project.environment) == stages
    assert project.read("dvc.lock") == before
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_dvc_shows_metrics_and_charts_without_an_error(reproduced: Project) -> None:
    table = reproduced.dvc("metrics", "show", "--md").stdout
    assert all(f"metrics/{name}.json" in table for name in MODELS) and "test_accuracy" in table
    shown = json.loads(reproduced.dvc("plots", "show", "--json").stdout)
    assert not shown.get("errors")
    charts = set(shown["data"])
    assert {"Validation accuracy", "Losses", "Learning rates", "Confusion of the selected model"} <= charts
    assert sum(name.endswith(".png") for name in charts) == 7
    [accuracy] = shown["data"]["Validation accuracy"]
    assert {point["model"] for point in accuracy["content"]["data"]["values"]} == set(MODELS)
    [losses] = shown["data"]["Losses"]
    assert {point["field"] for point in losses["content"]["data"]["values"]} == {"train_loss", "val_loss"}


def test_a_damaged_split_is_named_and_restored_by_dvc(project: Project) -> None:
    file = project.folder / "data/split/val.safetensors"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:100])
    command = ["python", "-m", "stages.train", "--params", "params.yaml", "--model", "model_1"]
    ended = project.run(*command, "--splits", "data/split", "--weights", "w", "--history", "h", check=False)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: data/split/val.safetensors: ") and "dvc checkout" in line
    project.dvc("checkout", "--force")
    assert project.repro() == []


@pytest.mark.parametrize(("jobs", "how"), [(2, signal.SIGINT), (1, signal.SIGTERM)])
def test_an_interrupted_run_ends_everywhere_and_can_be_taken_up(
    project: Project, jobs: int, how: signal.Signals
) -> None:
    before = project.read("dvc.lock")
    project.edit_params(lambda params: [recipe.update(epochs=999) for recipe in params["models"].values()])
    command = [sys.executable, "-m", "tools.repro", "--jobs", str(jobs), "--lock", "dvc.lock"]
    with project.start_in_background(*command) as process:
        try:
            assert process.stdout is not None
            started: set[str] = set()
            while len(started) < jobs:
                line = process.stdout.readline()
                assert line
                if "Epoch 1/999" in line:
                    started.add(line.split()[0])
            process.send_signal(how)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted: 'dvc repro' goes on from here"
    assert "Traceback" not in errors
    assert project.processes() == []
    project.run("git", "checkout", "params.yaml")
    assert not [stage for stage in project.repro() if stage.startswith("train@")]
    assert project.read("dvc.lock") == before
