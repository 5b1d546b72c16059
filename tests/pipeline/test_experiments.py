"""What the pages say of daily use and experiments, done as it is printed there; the stages compute nothing."""

import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import modify_yaml

from tests.helpers import ROOT
from tests.pipeline.small_project import MODELS, Project, printed, run_printed, stages_of, stages_run

USING = "docs/using.md"


def run(project: Project, command: str) -> str:
    """What a printed command prints; a queue is waited for."""
    if not command.startswith("dvc queue start"):
        return run_printed(project, command)
    # Not in a pipe: the workers that it starts would keep that open, and wait some seconds for more to do.
    run_printed(project, f"{command} >queue.txt 2>&1; rm queue.txt")
    try:
        for _ in range(90):
            status = project.dvc("queue", "status").stdout
            if "Queued" not in status and "Running" not in status:
                assert "Failed" not in status, status
                return ""
            time.sleep(2)
        raise AssertionError(status)
    finally:
        project.end_processes()


def slow_down(params: dict[str, Any], model: str) -> None:
    params["models"][model]["max_lr"] = 0.03


def is_clean(project: Project) -> bool:
    return project.run("git", "status", "--porcelain").stdout == ""


def test_experiments_run_as_printed(stubbed: Project) -> None:
    project = stubbed
    project.edit_params(lambda params: params.update(model="model_1"))
    project.dvc("repro")
    (project.folder / "metrics/benchmark.md").write_text("measured before")
    project.commit()
    weights = project.read("checkpoints/model_5.safetensors")
    commands = iter(printed(USING, "Experiments"))
    assert stages_run(run(project, next(commands))) == ["settings", "report"]
    assert stages_run(run(project, next(commands))) == ["settings", *stages_of("model_5"), "report"]
    assert "metrics/model_5.json" in run(project, next(commands))
    assert re.search(r"models.model_5.max_lr +0.2 +0.1", run(project, next(commands)))
    page = Path(run(project, next(commands)).strip().removeprefix("file://")).read_text()
    assert '"rev": "HEAD"' in page and '"rev": "workspace"' in page
    shutil.rmtree(project.folder / "dvc_plots")
    made = project.read("metrics/model_5.json")
    for own in ("README.md", "metrics/benchmark.md"):
        (project.folder / own).write_text("work of the user's own")
    run(project, next(commands))
    assert project.run("git", "status", "--porcelain").stdout == " M README.md\n"
    assert project.read("checkpoints/model_5.safetensors") == weights
    for file, text in {"metrics/model_5.json": made, "metrics/benchmark.md": "work of the user's own"}.items():
        assert project.run("git", "show", f"stash:{file}").stdout == text
    project.run("git", "checkout", "README.md")

    assert "train@model_5" in stages_run(run(project, next(commands)))
    run(project, next(commands))
    run(project, next(commands))
    assert run(project, next(commands)).count("Success") == 2
    assert is_clean(project)
    table = run(project, next(commands))
    assert max(map(len, table.splitlines())) <= 160
    assert "gentle" in table and "metrics/model_5.json:val_accuracy" in table and "models.model_5.epochs" in table
    run(project, next(commands))
    assert yaml.safe_load(project.read("params.yaml"))["models"]["model_5"]["max_lr"] == 0.05
    assert project.repro() == []
    run(project, next(commands))
    assert "gentle" in project.run("git", "branch").stdout.split()
    looked = run(project, next(commands))
    assert "test@model_5" in stages_run(looked) and "the rate is chosen" in project.read("looks.yaml")
    assert list(commands) == []


def test_a_wrong_experiment_is_refused_before_any_stage_with_the_way_back(stubbed: Project) -> None:
    # In the form in which DVC writes it: so the sizes are equal, by which Git knows a change first of all.
    with modify_yaml(str(stubbed.folder / "params.yaml")):
        pass
    stubbed.dvc("repro", "settings")
    stubbed.run("git", "commit", "--quiet", "--allow-empty", "--all", "--message", "state")
    size = (stubbed.folder / "params.yaml").stat().st_size
    ended = stubbed.dvc("exp", "run", "--set-param", "model=model_9", check=False)
    assert ended.returncode != 0
    assert stages_run(ended.stdout) == ["settings"]
    assert "error: params.yaml: model: 'model_9' is not allowed; allowed: model_1, model_5" in ended.stderr
    assert (stubbed.folder / "params.yaml").stat().st_size == size
    [way_back] = re.findall("'(git .+)'", ended.stderr)
    run(stubbed, way_back)
    assert is_clean(stubbed) and stubbed.repro() == []


@pytest.mark.parametrize("options", [("--temp", "--set-param", "model=model_9"), ("--set-param", "model_=model_1")])
def test_a_wrong_experiment_in_a_folder_of_its_own_and_an_unknown_setting_leave_the_file(
    stubbed: Project, options: tuple[str, ...]
) -> None:
    ended = stubbed.dvc("exp", "run", *options, check=False)
    assert ended.returncode != 0
    assert ("model_9" if "--temp" in options else "model_") in ended.stderr
    assert "git stash" not in ended.stderr
    assert is_clean(stubbed)


def test_an_experiment_changes_no_other_line_of_the_settings(tmp_path: Path) -> None:
    before = (ROOT / "params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(before)
    with modify_yaml(str(path)) as params:
        params["model"] = "model_1"
    changed = [line for line in path.read_text().splitlines() if line not in before.splitlines()]
    assert changed == ["model: model_1"]
    assert len(path.read_text().splitlines()) == len(before.splitlines())


def test_daily_commands_run_as_printed(stubbed_with_pages: Project) -> None:
    project = stubbed_with_pages
    commands = printed("README.md", "Daily commands")
    output = {command: run(project, command) for command in commands}
    assert "up to date" in output["dvc repro"]
    assert all(f"metrics/{name}.json" in output["dvc metrics show --md"] for name in MODELS)
    assert {line.split()[0] for line in output["make verify"].splitlines()} == {"ok"}
    assert "metrics/model_5.json" in output["dvc metrics diff"]
    project.run("git", "checkout", "--quiet", ".")
    project.dvc("checkout")
    project.run("git", "branch", "--force", "main")
    [command] = printed(USING, "Pull requests")
    assert "No change: all metrics of all models are the same." in run(project, command)


def test_a_conflict_in_the_lock_file_is_resolved_as_printed(stubbed: Project) -> None:
    for branch, model in (("left", "model_1"), ("right", "model_5")):
        stubbed.run("git", "checkout", "--quiet", "-b", branch, "HEAD" if branch == "left" else "left~1")
        stubbed.dvc("checkout")
        stubbed.edit_params(partial(slow_down, model=model))
        stubbed.dvc("repro")
        stubbed.commit()
    ended = stubbed.run("git", "merge", "left", check=False)
    assert "CONFLICT" in ended.stdout and "dvc.lock" in ended.stdout
    output = [run(stubbed, command) for command in printed(USING, "When …")[:3]]
    assert stages_run(output[1]) == ["settings", "report"]  # both models were trained before
    assert is_clean(stubbed) and stubbed.repro() == []
    models = yaml.safe_load(stubbed.read("params.yaml"))["models"]
    assert models["model_1"]["max_lr"] == models["model_5"]["max_lr"] == 0.03
