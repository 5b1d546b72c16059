"""What the README says of daily use and experiments, done as it is printed there."""

import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import modify_yaml

from tests.pipeline.small_project import ROOT, Project, stages_run

README = (ROOT / "README.md").read_text()


def printed(section: str) -> list[str]:
    """The commands that a section of the README prints, without their comments, continued lines joined."""
    text = re.split(r"^##+ ", README.split(f"# {section}\n")[1], flags=re.MULTILINE)[0]
    lines = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := re.sub(r"\s+#.*", "", line).strip())]


def run(project: Project, command: str) -> str:
    """What a command prints; of make, without setting up an environment."""
    told = project.run(
        "bash", "-c", command.replace("make ", "make --no-print-directory --old-file=.venv/ready ")
    ).stdout
    if command.startswith("dvc queue start"):
        wait_for_queue(project)
    return told


def wait_for_queue(project: Project) -> None:
    for _ in range(180):
        told = project.dvc("queue", "status").stdout
        if "Queued" not in told and "Running" not in told:
            assert "Failed" not in told, told
            return
        time.sleep(1)
    raise AssertionError(told)


def slow_down(params: dict[str, Any], model: str) -> None:
    params["models"][model]["max_lr"] = 0.03


def is_clean(project: Project) -> bool:
    return project.run("git", "status", "--porcelain").stdout == ""


@pytest.fixture
def presenting_model_1(project: Project) -> Project:
    project.edit_params(lambda params: params.update(model="model_1"))
    project.dvc("repro")
    project.commit()
    return project


def test_experiments_run_as_printed(presenting_model_1: Project) -> None:
    project = presenting_model_1
    commands = iter(printed("Experiments"))
    assert stages_run(run(project, next(commands))) == ["settings", "report"]
    assert stages_run(run(project, next(commands))) == ["settings", "train@model_5", "evaluate@model_5", "report"]
    assert "metrics/model_5.json" in run(project, next(commands))
    assert re.search(r"models.model_5.max_lr +0.2 +0.1", run(project, next(commands)))
    page = Path(run(project, next(commands)).strip().removeprefix("file://")).read_text()
    assert '"rev": "HEAD"' in page and '"rev": "workspace"' in page
    shutil.rmtree(project.folder / "dvc_plots")
    run(project, next(commands))
    assert is_clean(project)

    assert "train@model_5" in stages_run(run(project, next(commands)))
    run(project, next(commands))
    run(project, next(commands))
    assert run(project, next(commands)).count("Success") == 2
    assert is_clean(project)
    table = run(project, next(commands))
    assert max(map(len, table.splitlines())) <= 120
    assert "gentle" in table and "metrics/model_5.json:val_accuracy" in table and "models.model_5.epochs" in table
    run(project, next(commands))
    assert yaml.safe_load(project.read("params.yaml"))["models"]["model_5"]["max_lr"] == 0.05
    assert project.repro() == []
    run(project, next(commands))
    assert "gentle" in project.run("git", "branch").stdout.split()
    assert list(commands) == []


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("model=model_9", "model: 'model_9' is not allowed; allowed: model_1, model_3, model_5"),
        ("models.model_5.max_lr=-1", "models.model_5.max_lr: -1 is not allowed: input should be greater than 0"),
        ("+models.model_5.max_lrr=0.1", "models.model_5.max_lrr: unknown setting"),
    ],
)
def test_an_experiment_that_cannot_be_is_refused_before_any_stage(project: Project, setting: str, told: str) -> None:
    ended = project.dvc("exp", "run", "--set-param", setting, check=False)
    assert ended.returncode != 0
    assert stages_run(ended.stdout) == ["settings"]
    assert f"error: params.yaml: {told}" in ended.stderr
    assert project.run("git", "status", "--porcelain").stdout == " M params.yaml\n"
    [way_back] = re.findall("'(git restore .+)'", ended.stderr)
    run(project, way_back)
    assert is_clean(project) and project.repro() == []


def test_in_a_folder_of_its_own_it_leaves_nothing_to_take_back(project: Project) -> None:
    ended = project.dvc("exp", "run", "--temp", "--set-param", "model=model_9", check=False)
    assert ended.returncode != 0
    assert "'model_9' is not allowed" in ended.stderr and "git restore" not in ended.stderr
    assert is_clean(project)


def test_a_setting_that_is_none_is_refused_by_dvc_and_leaves_the_file(project: Project) -> None:
    ended = project.dvc("exp", "run", "--set-param", "models.model_5.max_lrr=0.1", check=False)
    assert ended.returncode != 0 and "max_lrr" in ended.stderr
    assert is_clean(project)


def test_an_experiment_changes_no_other_line_of_the_settings(tmp_path: Path) -> None:
    before = (ROOT / "params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(before)
    with modify_yaml(str(path)) as params:
        params["model"] = "model_1"
    changed = [line for line in path.read_text().splitlines() if line not in before.splitlines()]
    assert changed == ["model: model_1"]
    assert len(path.read_text().splitlines()) == len(before.splitlines())


def test_daily_commands_run_as_printed(reproduced_with_tables: Project) -> None:
    project = reproduced_with_tables
    told = {command: run(project, command) for command in printed("Daily use")}
    assert "up to date" in told["dvc repro"]
    assert all(f"metrics/{name}.json" in told["dvc metrics show --md"] for name in ("model_1", "model_3", "model_5"))
    assert [line.split()[0] for line in told["make verify"].splitlines()] == ["ok"] * 4
    project.run("git", "branch", "--force", "main")
    [command] = printed("Pull requests")
    assert "No change: all metrics of all models are the same." in run(project, command)


def test_a_conflict_in_the_lock_file_is_resolved_as_printed(project: Project) -> None:
    for branch, model in (("left", "model_1"), ("right", "model_3")):
        project.run("git", "checkout", "--quiet", "-b", branch, "HEAD" if branch == "left" else "left~1")
        project.dvc("checkout")
        project.edit_params(partial(slow_down, model=model))
        project.dvc("repro")
        project.commit()
    ended = project.run("git", "merge", "left", check=False)
    assert "CONFLICT" in ended.stdout and "dvc.lock" in ended.stdout
    told = [run(project, command) for command in printed("When …")[:3]]
    assert stages_run(told[1]) == ["settings", "report"]  # both models were trained before
    assert is_clean(project) and project.repro() == []
    models = yaml.safe_load(project.read("params.yaml"))["models"]
    assert models["model_1"]["max_lr"] == models["model_3"]["max_lr"] == 0.03


def test_a_model_is_added_by_one_file_and_one_entry(project: Project) -> None:
    folder = project.folder / "src/mnist_cnn/models"
    (folder / "model_8.py").write_text((folder / "model_5.py").read_text().replace("Model 5", "Model 8"))
    project.edit_params(lambda params: params["models"].update(model_8=params["models"]["model_5"]))
    assert project.repro() == ["settings", "train@model_8", "evaluate@model_8", "report"]
    assert "| **model_8** |" in project.read("metrics/comparison.md")
    shown = project.dvc("plots", "show", "--json").stdout
    assert "plots/history/model_8.csv" in shown and "errors" not in shown


def test_the_cache_is_moved_as_printed_and_no_network_is_needed(project: Project, tmp_path: Path) -> None:
    [command] = [command for command in printed("When …") if "cache dir" in command]
    run(project, command.replace("/a/large/disk", str(tmp_path)))
    for name in ("data", "checkpoints"):
        shutil.rmtree(project.folder / name)
    project.dvc("checkout")
    offline = Project(project.folder, tmp_path / "no mirror")
    offline.edit_params(lambda params: params["models"]["model_1"].update(max_lr=0.03))
    assert offline.repro() == ["settings", "train@model_1", "evaluate@model_1", "report"]


def test_the_folders_are_named_in_the_pipeline_alone(project: Project) -> None:
    pipeline = project.folder / "dvc.yaml"
    pipeline.write_text(re.sub(r"\bdata/(?=raw|split)", "elsewhere/", pipeline.read_text()))
    (project.folder / ".gitignore").write_text(f"{project.read('.gitignore')}/elsewhere/\n")
    project.repro("evaluate@model_1")
    assert (project.folder / "elsewhere/split/val.safetensors").is_file()
