"""What a user does with the pipeline, done with the real dvc on small data."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.pipeline.small_project import MODELS, Project, stages_run

EVERY_STAGE = [
    "settings",
    "download",
    "split",
    *(f"train@{name}" for name in MODELS),
    *(f"evaluate@{name}" for name in MODELS),
    "report",
]
KEYS = [
    "parameters",
    "epochs",
    "train_accuracy",
    "val_accuracy",
    "test_accuracy",
    "test_loss",
    "generalization_gap",
    "calibration_error",
    "worst_class_recall",
    "meets_accuracy_target",
    "meets_epochs_target",
    "meets_parameters_target",
    "engine",
]


def test_the_stages_are_those_of_the_story_in_order(project: Project) -> None:
    listed = project.dvc("stage", "list", "--name-only").stdout.split()
    assert sorted(listed) == sorted(EVERY_STAGE)


def test_a_reproduced_pipeline_is_up_to_date_and_clean(project: Project) -> None:
    assert project.repro() == []
    assert "up to date" in project.dvc("repro").stdout
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_with_nothing_to_do_dvc_starts_no_stage_and_loads_no_torch(project: Project) -> None:
    ended = project.run("env", "PYTHONPROFILEIMPORTTIME=1", sys.executable, "-m", "dvc", "repro")
    loaded = {line.split("|")[-1].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")}
    assert "dvc.repo.reproduce" in loaded
    assert "torch" not in loaded


def test_every_promised_file_is_there_and_no_scratch_file(project: Project) -> None:
    for name in MODELS:
        assert list(json.loads(project.read(f"metrics/{name}.json"))) == KEYS
        history = pd.read_csv(project.folder / f"plots/history/{name}.csv")
        assert list(history) == ["epoch", "learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
        assert history["epoch"].tolist() == [1]
        confusion = pd.read_csv(project.folder / f"plots/confusion/{name}.csv")
        assert len(confusion) == 100 and confusion["count"].sum() == 100
        assert len(pd.read_csv(project.folder / f"plots/recall/{name}.csv")) == 10
        assert (project.folder / f"checkpoints/{name}.safetensors").is_file()
        row = f"| **{name}** |"
        assert row in project.read("metrics/comparison.md")
    assert pd.read_csv(project.folder / "metrics/comparison.csv")["model"].tolist() == list(MODELS)
    assert json.loads(project.read("metrics/selected.json"))["model"] == "model_5"
    pictures = {path.stem for path in (project.folder / "plots/pictures").glob("*.png")}
    assert pictures == {"accuracy", "loss", "parameters", "confusion", "misread", "augmented"}
    assert not list(project.folder.rglob(".*.part*"))


def test_the_statistics_of_the_split_are_recorded(project: Project) -> None:
    recorded = json.loads(project.read("data/split/statistics.json"))
    assert recorded["images"] == {"train": 300, "val": 100, "test": 100}
    assert recorded["images_per_class"]["test"] == [10] * 10
    assert 0 < recorded["mean"] < 1 and 0 < recorded["std"] < 1


def test_the_last_epochs_validation_accuracy_is_the_one_evaluated(project: Project) -> None:
    for name in MODELS:
        history = pd.read_csv(project.folder / f"plots/history/{name}.csv")
        assert json.loads(project.read(f"metrics/{name}.json"))["val_accuracy"] == history["val_accuracy"].iloc[-1]


def test_a_changed_recipe_reruns_that_model_alone(project: Project) -> None:
    project.edit_params(lambda params: params["models"]["model_3"].update(max_lr=0.03))
    assert project.repro() == ["settings", "train@model_3", "evaluate@model_3", "report"]


def test_a_changed_model_file_reruns_that_model_alone(project: Project) -> None:
    path = project.folder / "src/mnist_cnn/models/model_1.py"
    path.write_text(path.read_text().replace("Model 1:", "The first model:"))
    # Its weights come out the same, so that nothing after the training needs to run but what reads the file.
    assert project.repro() == ["train@model_1", "evaluate@model_1"]


def test_changed_plotting_code_retrains_nothing(project: Project) -> None:
    path = project.folder / "src/mnist_cnn/plotting.py"
    path.write_text(path.read_text() + "\n# a change\n")
    assert project.repro() == ["report"]


def test_a_changed_split_reruns_all_but_the_download(project: Project) -> None:
    project.edit_params(lambda params: params["split"].update(method="stratified"))
    assert project.repro() == [stage for stage in EVERY_STAGE if stage != "download"]


def test_one_model_or_one_kind_of_stage_can_be_asked_for(project: Project) -> None:
    project.edit_params(lambda params: [params["models"][name].update(max_lr=0.03) for name in MODELS])
    assert project.repro("train@model_5") == ["settings", "train@model_5"]
    others = {"train@model_1", "train@model_3"}
    assert set(project.repro("evaluate")) == others | {f"evaluate@{name}" for name in MODELS}
    assert project.repro() == ["report"]


def test_everything_again_from_nothing_gives_the_same_bytes(project: Project) -> None:
    before = project.read("dvc.lock")
    assert project.repro("--force") == EVERY_STAGE
    assert project.read("dvc.lock") == before
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_training_run_parallel_gives_the_same_bytes(project: Project) -> None:
    before = project.read("dvc.lock")
    for path in ("data", "checkpoints", ".dvc/cache", "dvc.lock"):
        target = project.folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    ended = project.run("python", "-m", "tools.repro", "--jobs", "2", "--lock", "dvc.lock")
    assert "model_3 | [STEP 1/5] Preparing datasets..." in ended.stdout
    assert project.read("dvc.lock") == before
    assert project.repro() == []


def test_an_experiment_with_another_selected_model_trains_nothing(project: Project) -> None:
    ended = project.dvc("exp", "run", "--set-param", "model=model_1")
    assert stages_run(ended.stdout) == ["settings", "report"]
    assert json.loads(project.read("metrics/selected.json"))["model"] == "model_1"
    change = json.loads(project.dvc("metrics", "diff", "--json").stdout)
    assert change["metrics/selected.json"]["model"] == {"old": "model_5", "new": "model_1"}
    assert change["metrics/selected.json"]["parameters"] == {"old": 7778, "new": 28954, "diff": 21176}


def test_dvc_metrics_show_is_a_comparison(project: Project) -> None:
    table = project.dvc("metrics", "show", "--md").stdout
    for name in MODELS:
        assert f"metrics/{name}.json" in table
    assert "test_accuracy" in table


def test_dvc_plots_has_the_promised_charts_and_no_error(project: Project) -> None:
    shown = json.loads(project.dvc("plots", "show", "--json").stdout)
    assert not shown.get("errors")
    charts = set(shown["data"])
    assert {"Validation accuracy", "Losses", "Learning rates", "Confusion of the selected model"} <= charts
    assert sum(name.endswith(".png") for name in charts) == 6
    [accuracy] = shown["data"]["Validation accuracy"]
    assert {point["model"] for point in accuracy["content"]["data"]["values"]} == set(MODELS)
    [losses] = shown["data"]["Losses"]
    assert {point["field"] for point in losses["content"]["data"]["values"]} == {"train_loss", "val_loss"}


def test_dvc_plots_show_writes_a_page(project: Project) -> None:
    page = Path(project.dvc("plots", "show").stdout.strip().removeprefix("file://"))
    assert "Validation accuracy" in page.read_text()


@pytest.mark.parametrize(
    ("section", "change", "told"),
    [
        ("models.model_3", {"max_lr": -1.0}, "models.model_3.max_lr: -1.0 is not allowed"),
        ("models.model_3", {"max_lrr": 0.1}, "models.model_3.max_lrr: unknown setting"),
        ("train", {"engine": "two"}, "train.engine: 'two' is not allowed"),
        ("split", {"method": "best"}, "split.method: 'best' is not allowed"),
        ("", {"model": "model_9"}, "model: 'model_9' is not allowed; allowed: model_1, model_3, model_5"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(project: Project, section: str, change: dict, told: str) -> None:
    def break_it(params: dict) -> None:
        for name in filter(None, section.split(".")):
            params = params[name]
        params.update(change)

    project.edit_params(break_it)
    ended = project.dvc("repro", check=False)
    assert ended.returncode != 0
    assert f"error: params.yaml: {told}" in ended.stderr
    assert "Traceback" not in ended.stderr
    # Nothing was touched.
    assert project.run("git", "status", "--porcelain").stdout == " M params.yaml\n"
    project.run("git", "checkout", "--quiet", "params.yaml")
    assert project.repro() == []


def test_a_damaged_part_is_named_and_restored_by_dvc(project: Project) -> None:
    part = project.folder / "data/split/val.safetensors"
    part.chmod(0o644)
    part.write_bytes(part.read_bytes()[:100])
    command = ["python", "-m", "stages.train", "--params", "params.yaml", "--model", "model_1"]
    command += ["--train", "data/split/train.safetensors", "--val", "data/split/val.safetensors"]
    command += ["--statistics", "data/split/statistics.json", "--weights", "w", "--history", "h"]
    ended = project.run(*command, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: data/split/val.safetensors: cannot be read")
    assert len(ended.stderr.splitlines()) == 1
    project.dvc("checkout", "--force")
    assert project.repro() == []


@pytest.mark.parametrize(("jobs", "how"), [(2, signal.SIGINT), (2, signal.SIGTERM), (1, signal.SIGTERM)])
def test_an_interrupted_run_ends_everywhere_and_can_be_taken_up(
    project: Project, jobs: int, how: signal.Signals
) -> None:
    before = project.read("dvc.lock")
    project.edit_params(lambda params: params["models"]["model_1"].update(epochs=999))
    project.edit_params(lambda params: params["models"]["model_3"].update(epochs=999))
    # As a shell starts a background job: SIGINT ignored, until the program says otherwise.
    command = [sys.executable, "-m", "tools.repro", "--jobs", str(jobs), "--lock", "dvc.lock"]
    with project.start("sh", "-c", 'trap "" INT; exec "$@"', "sh", *command) as process:
        try:
            assert process.stdout is not None
            started: set[str] = set()
            while len(started) < jobs:
                line = process.stdout.readline()
                assert line
                if "Epoch 1/999" in line:
                    started.add(line.split()[0])
            process.send_signal(how)
            _, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert told.splitlines()[-1] == "interrupted: 'dvc repro' goes on from here"
    assert "Traceback" not in told
    assert project.processes() == []
    project.run("git", "checkout", "params.yaml")
    assert {"train@model_1", "train@model_3"}.isdisjoint(project.repro())
    assert project.read("dvc.lock") == before


def test_the_models_that_train_are_named_when_one_fails(project: Project) -> None:
    project.edit_params(lambda params: params["models"]["model_1"].update(dropout=0.5))
    project.edit_params(lambda params: params["models"]["model_3"].update(max_lr=0.03))
    ended = project.run("python", "-m", "tools.repro", "--jobs", "2", "--lock", "dvc.lock", check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "error: failed: train@model_1"
    assert "model_1 has no dropout layers" in ended.stdout
    assert "model_3 | [STEP 5/5]" in ended.stdout
