"""Which stages run again after which change, with the real dvc; the stages compute nothing."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.small_project import MODELS, Project, printed, run_printed, stages_of, stages_run

EVERY_STAGE = ["settings", "download", "split", *stages_of(*MODELS), "report"]


def append(project: Project, path: str) -> None:
    file = project.folder / path
    file.write_text(file.read_text() + "\n# a change\n")


def test_the_stages_are_those_of_the_story_and_up_to_date_and_clean(stubbed: Project) -> None:
    assert sorted(stubbed.dvc("stage", "list", "--name-only").stdout.split()) == sorted(EVERY_STAGE)
    ended = stubbed.run("env", "PYTHONPROFILEIMPORTTIME=1", sys.executable, "-m", "dvc", "repro")
    assert stages_run(ended.stdout) == [] and "up to date" in ended.stdout
    assert stubbed.run("git", "status", "--porcelain").stdout == ""
    # Nor is PyTorch loaded by dvc itself.
    loaded = {line.split("|")[-1].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")}
    assert "dvc.repo.reproduce" in loaded and "torch" not in loaded


def test_a_changed_recipe_or_model_file_concerns_that_model_alone(stubbed: Project) -> None:
    append(stubbed, "src/mnist_cnn/models/model_1.py")
    # The weights come out the same; what reads the file runs all the same.
    assert stubbed.repro() == ["settings", *stages_of("model_1")]
    stubbed.edit_params(lambda params: params["models"]["model_1"].update(max_lr=0.03))
    assert stubbed.repro() == ["settings", *stages_of("model_1"), "report"]


def test_settings_of_another_data_set_concern_no_stage_but_their_check(stubbed: Project) -> None:
    def change(params: dict[str, Any]) -> None:
        params["split"]["kmnist"]["val"] = 4000
        params["targets"]["kmnist"]["test_accuracy"] = 96.0

    stubbed.edit_params(change)
    assert stubbed.repro() == ["settings"]


def test_a_declared_look_concerns_the_stages_that_take_it(stubbed: Project) -> None:
    append(stubbed, "looks.yaml")
    assert stubbed.repro() == [*(f"test@{name}" for name in MODELS), "report"]


@pytest.mark.parametrize(
    ("file", "ran"),
    [
        ("report/figures/digits.py", ["report"]),
        ("report/study_tables.py", ["report"]),
        ("study/settings.py", []),
        ("evaluation/intervals.py", [*(s for s in stages_of(*MODELS) if not s.startswith("train")), "report"]),
    ],
)
def test_what_a_training_does_not_need_retrains_nothing(stubbed: Project, file: str, ran: list[str]) -> None:
    append(stubbed, f"src/mnist_cnn/{file}")
    assert sorted(stubbed.repro()) == sorted(ran)


def test_a_changed_split_reruns_all_but_the_download(stubbed: Project) -> None:
    stubbed.edit_params(lambda params: params["split"]["mnist"].update(method="stratified"))
    assert sorted(stubbed.repro()) == sorted(stage for stage in EVERY_STAGE if stage != "download")


def test_one_model_or_one_kind_of_stage_can_be_asked_for(stubbed: Project) -> None:
    stubbed.edit_params(lambda params: [params["models"][name].update(max_lr=0.03) for name in MODELS])
    assert stubbed.repro("train@model_5") == ["settings", "train@model_5"]
    assert set(stubbed.repro("evaluate")) == {"train@model_1", *(f"evaluate@{name}" for name in MODELS)}
    rest = [stage for stage in stages_of(*MODELS) if stage.startswith(("test", "export"))]
    assert sorted(stubbed.repro()) == sorted(["report", *rest])


def test_wrong_settings_are_refused_in_one_line_before_any_stage(stubbed: Project) -> None:
    stubbed.edit_params(lambda params: params["models"]["model_1"].update(max_lr=-1.0))
    ended = stubbed.dvc("repro", check=False)
    assert ended.returncode != 0
    assert "error: params.yaml: models.model_1.max_lr: -1.0 is not allowed" in ended.stderr
    assert "Traceback" not in ended.stderr
    # Nothing was touched.
    assert stubbed.run("git", "status", "--porcelain").stdout == " M params.yaml\n"
    stubbed.run("git", "checkout", "--quiet", "params.yaml")
    assert stubbed.repro() == []


def test_another_selected_model_trains_nothing_and_shows_in_the_difference(stubbed: Project) -> None:
    ended = stubbed.dvc("exp", "run", "--set-param", "model=model_1")
    assert stages_run(ended.stdout) == ["settings", "report"]
    change = json.loads(stubbed.dvc("metrics", "diff", "--json").stdout)
    assert change["metrics/selected.json"]["model"] == {"old": "model_5", "new": "model_1"}


def test_a_model_is_added_by_one_file_and_one_entry(stubbed: Project) -> None:
    folder = stubbed.folder / "src/mnist_cnn/models"
    (folder / "model_8.py").write_text((folder / "model_5.py").read_text().replace("Model 5", "Model 8"))
    stubbed.edit_params(lambda params: params["models"].update(model_8=params["models"]["model_5"]))
    assert stubbed.repro() == ["settings", *stages_of("model_8"), "report"]
    assert "| **model_8** |" in stubbed.read("metrics/comparison.md")
    charts = stubbed.dvc("plots", "show", "--json").stdout
    assert "plots/history/model_8.csv" in charts and "errors" not in charts


def test_the_folders_are_named_in_the_pipeline_alone(stubbed: Project) -> None:
    pipeline = stubbed.folder / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace("data/split", "elsewhere/split"))
    (stubbed.folder / ".gitignore").write_text(f"{stubbed.read('.gitignore')}/elsewhere/\n")
    stubbed.repro("evaluate@model_1")
    assert (stubbed.folder / "elsewhere/split/val.safetensors").is_file()


def test_data_and_results_come_back_from_the_cache(stubbed: Project) -> None:
    for path in ("data/split/val.safetensors", "checkpoints/model_1.safetensors"):
        (stubbed.folder / path).unlink()
    (stubbed.folder / "metrics/model_1.json").unlink()
    assert stubbed.repro() == []
    assert stubbed.run("git", "status", "--porcelain").stdout == ""
    assert Path(stubbed.folder / "checkpoints/model_1.safetensors").is_file()


def test_a_model_that_fails_is_named_and_leaves_the_others_alone(stubbed: Project) -> None:
    def change(params: dict[str, Any]) -> None:
        # One more than run at a time: it has its turn when another has failed.
        params["models"]["model_3"] = params["models"]["model_5"]
        params["models"] = {name: recipe | {"max_lr": 0.03} for name, recipe in params["models"].items()}

    stubbed.edit_params(change)
    stage = stubbed.folder / "stages/stub.py"
    stage.write_text(stage.read_text() + 'if "model_1" in sys.argv:\n    sys.exit("error: of model_1")\n')
    ended = stubbed.run("python", "-m", "tools.repro", "--jobs", "2", "--lock", "dvc.lock", check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "error: failed: train@model_1"
    assert "model_1 | error: of model_1" in ended.stdout
    assert all(f"Running stage 'evaluate@{name}'" in ended.stdout for name in ("model_3", "model_5"))
    assert "Running stage 'report'" not in ended.stdout


def test_the_cache_is_moved_as_printed_and_no_network_is_needed(stubbed: Project, tmp_path: Path) -> None:
    [command] = [command for command in printed("docs/using.md", "When …") if "cache dir" in command]
    run_printed(stubbed, command.replace("/a/large/disk", str(tmp_path)))
    for name in ("data", "checkpoints"):
        shutil.rmtree(stubbed.folder / name)
    stubbed.dvc("checkout")
    stubbed.edit_params(lambda params: params["models"]["model_1"].update(max_lr=0.03))
    assert stubbed.repro() == ["settings", *stages_of("model_1"), "report"]
