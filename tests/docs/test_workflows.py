"""What GitHub's workflows may do. Their syntax is `make check`'s."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = {path.stem: path for path in (ROOT / ".github/workflows").glob("*.yml")}
# YAML 1.1 reads the key `on` as true.
WORKFLOWS: dict[str, dict[Any, Any]] = {name: yaml.safe_load(path.read_text()) for name, path in FILES.items()}
JOBS = [(name, job) for name, workflow in WORKFLOWS.items() for job in workflow["jobs"]]


def steps(workflow: str, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = WORKFLOWS[workflow]["jobs"][job]["steps"]
    return found


def test_the_workflows_are_these() -> None:
    assert set(WORKFLOWS) == {"tests", "report", "comment", "experiment"}


@pytest.mark.parametrize(("workflow", "job"), JOBS)
def test_a_job_has_the_least_rights_a_time_limit_and_nothing_put_into_its_shell(workflow: str, job: str) -> None:
    assert WORKFLOWS[workflow]["permissions"] == {"contents": "read"}
    assert WORKFLOWS[workflow]["jobs"][job]["timeout-minutes"] <= 90
    for step in steps(workflow, job):
        assert "${{" not in step.get("run", "")
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
    rights = WORKFLOWS[workflow]["jobs"][job].get("permissions", {})
    writes = {right for right, level in rights.items() if level == "write"}
    assert writes == ({"pull-requests"} if job == "comment" else set())


def test_a_job_that_may_write_runs_no_code_but_the_posting() -> None:
    for workflow in ("comment", "experiment"):
        commands = [step["run"] for step in steps(workflow, "comment") if "run" in step]
        assert commands == ['python3 -m stages.comment --report report/report.md --event "$GITHUB_EVENT_PATH"']
        [checkout] = [step for step in steps(workflow, "comment") if "checkout" in step.get("uses", "")]
        assert "ref" not in checkout["with"]


def test_the_report_has_no_secrets_and_is_posted_by_the_workflow_that_waits_for_it() -> None:
    assert all("pull_request_target" not in workflow[True] for workflow in WORKFLOWS.values())
    assert set(WORKFLOWS["comment"][True]) == {"workflow_run"}
    assert WORKFLOWS["comment"][True]["workflow_run"]["workflows"] == [WORKFLOWS["report"]["name"]]
    text = FILES["report"].read_text()
    assert "secrets." not in text and "github.token" not in text
    for workflow in ("report", "experiment"):
        [up] = [step for step in steps(workflow, workflow) if "upload-artifact" in step.get("uses", "")]
        down_in = "comment" if workflow == "report" else "experiment"
        [down] = [step for step in steps(down_in, "comment") if "download-artifact" in step.get("uses", "")]
        assert up["with"]["name"] == down["with"]["name"]
        assert up["with"]["path"] == f"{down['with']['path']}/report.md"


def test_an_experiments_settings_reach_dvc_one_by_one_and_unread(tmp_path: Path) -> None:
    [step] = [step for step in steps("experiment", "experiment") if step.get("name") == "Experiment"]
    dvc = tmp_path / ".venv/bin/dvc"
    dvc.parent.mkdir(parents=True)
    dvc.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    dvc.chmod(0o755)
    settings = "model=model_5 models.model_5.max_lr=0.1;touch${IFS}here $(touch here)"
    environment = {"SETTINGS": settings, "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        ["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    told = [f"--set-param={setting}" for setting in settings.split()]
    assert ended.stdout.splitlines() == ["exp", "run", *told]
    assert not (tmp_path / "here").exists()


def test_every_path_that_a_workflow_names_is_there() -> None:
    for path in FILES.values():
        for module in re.findall(r"-m (stages\.\w+)", path.read_text()):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
