"""The scripts of the workflows as GitHub would run them, on small data, with the real dvc, git and make."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.helpers import ROOT
from tests.pipeline.small_project import Project


@pytest.fixture
def steps(stubbed: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """The project as a job finds it when it is set up: a virtual environment, and files to write to."""
    project = stubbed
    (project.folder / ".venv/bin").mkdir(parents=True)
    (project.folder / ".venv/bin/activate").touch()
    dvc = shutil.which("dvc", path=project.forking_environment["PATH"])
    assert dvc
    (project.folder / ".venv/bin/dvc").symlink_to(dvc)
    (project.folder / ".venv/ready").touch()
    monkeypatch.setenv("RUNNER_TEMP", str(tmp_path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    for name in ("GITHUB_SERVER_URL", "GITHUB_BASE_REF", "MAKEFLAGS"):
        monkeypatch.delenv(name, raising=False)
    return project


def script(workflow: str, step: str) -> tuple[str, ...]:
    """A step's script, to be run as GitHub runs it."""
    [job] = [
        job
        for job in yaml.safe_load((ROOT / f".github/workflows/{workflow}.yml").read_text())["jobs"].values()
        if any(found.get("name") == step for found in job["steps"])
    ]
    [text] = [found["run"] for found in job["steps"] if found.get("name") == step]
    return "bash", "-e", "-c", text


def report(project: Project, workflow: str, tmp_path: Path) -> str:
    """What the workflow's step 'Report' hands over, which is what the run's page shows."""
    (tmp_path / "summary.md").unlink(missing_ok=True)
    project.run(*script(workflow, "Report"))
    output = (tmp_path / "report.md").read_text()
    assert (tmp_path / "summary.md").read_text() == output
    return output


def test_a_pull_request_without_results_gets_them_and_one_with_results_is_confirmed(
    steps: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BASE", "HEAD~1")
    monkeypatch.setenv("REPRO", "success")
    steps.edit_params(lambda params: params["models"]["model_1"].update(max_lr=0.04))
    steps.commit()
    steps.run(*script("report", "Reproduce"))
    output = report(steps, "report", tmp_path)
    assert "- ⚠️ The committed results are of other code or settings (stages: `settings`, `train@model_1`, " in output
    assert "train@model_5" not in output
    assert re.search(r"\| `models.model_1.max_lr` \| `[\d.]+` \| `0.04` \|", output)
    assert "- No change: `model_5`" in output

    steps.run("git", "add", "--all")
    steps.run("git", "commit", "--quiet", "--amend", "--no-edit")
    steps.run(*script("report", "Reproduce"))
    output = report(steps, "report", tmp_path)
    assert "- ✅ `make repro` leaves the committed results as they are" in output
    assert "- No change: `model_5`" in output


def test_a_run_that_has_the_cache_alone_trains_nothing(steps: Project) -> None:
    """As a later run finds it: files of the commit, and DVC's cache."""
    for folder in ("data", "checkpoints"):
        shutil.rmtree(steps.folder / folder)
    output = steps.run(*script("report", "Reproduce")).stdout
    assert "stages.train" not in output and "stages.download" not in output
    assert steps.run("git", "status", "--porcelain").stdout == ""


def test_an_experiment_runs_with_the_settings_that_were_typed(
    steps: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "BASE": "HEAD",
        "EXPERIMENT": "slow",
        "SETTINGS": " models.model_1.max_lr=0.04\tmodel=model_1\n",
    }.items():
        monkeypatch.setenv(name, value)
    steps.run(*script("experiment", "Run"))
    output = report(steps, "experiment", tmp_path)
    assert output.startswith("## Experiment `slow`\n")
    assert re.search(r"\| `models.model_1.max_lr` \| `[\d.]+` \| `0.04` \|", output)
    assert "- The selected model is `model_1`; on `HEAD` it is `model_5`" in output
    assert "\ndvc exp run -S models.model_1.max_lr=0.04 -S model=model_1\n" in output
    assert "slow" in steps.dvc("exp", "list", "--name-only").stdout


@pytest.mark.parametrize("typed", ["--force", "model=$(touch${IFS}made)", "`touch made`"])
def test_settings_are_never_commands_nor_options(steps: Project, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setenv("EXPERIMENT", "bad")
    monkeypatch.setenv("SETTINGS", typed)
    ended = steps.run(*script("experiment", "Run"), check=False)
    assert ended.returncode != 0
    assert "ERROR" in ended.stderr + ended.stdout
    assert not (steps.folder / "made").exists()


def test_what_was_typed_is_text_to_the_report_as_well(
    steps: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    typed = "a=$(touch made) b=`touch made` c=$(shell touch made) ';touch made' --d"
    for name, value in {"BASE": "HEAD", "EXPERIMENT": typed, "SETTINGS": typed}.items():
        monkeypatch.setenv(name, value)
    output = report(steps, "experiment", tmp_path)
    assert "-S 'a=$(touch' -S 'made)' " in output
    assert not (steps.folder / "made").exists()
