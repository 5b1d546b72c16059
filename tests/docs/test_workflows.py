"""What the linters of `make check` do not know of the workflows: what they may do, and that they fit together."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / ".github/workflows"
# PyYAML reads the key 'on' as true.
WORKFLOWS: dict[str, dict[Any, Any]] = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yml")}
JOBS = {f"{name}/{key}": job for name, workflow in WORKFLOWS.items() for key, job in workflow["jobs"].items()}
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]


def using(action: str, job: str) -> list[dict[str, Any]]:
    """What each step of a job that uses an action hands it."""
    return [
        step.get("with", {}) for step in JOBS[job]["steps"] if step.get("uses", "").startswith(f"actions/{action}@")
    ]


def test_only_the_jobs_that_comment_may_write_and_that_alone() -> None:
    assert {name: workflow["permissions"] for name, workflow in WORKFLOWS.items()} == {
        "comment": {},
        "experiment": {"contents": "read"},
        "report": {"contents": "read"},
        "tests": {"contents": "read"},
    }
    assert {name: job["permissions"] for name, job in JOBS.items() if "permissions" in job} == {
        "comment/comment": {"actions": "read", "contents": "read", "pull-requests": "write"},
        "experiment/comment": {"contents": "read", "pull-requests": "write"},
    }


@pytest.mark.parametrize("job", ["comment/comment", "experiment/comment"])
def test_a_job_that_may_write_runs_nothing_but_the_post(job: str) -> None:
    assert using("checkout", job) == [{"persist-credentials": False}]
    [run] = [step["run"] for step in JOBS[job]["steps"] if "run" in step]
    assert run.startswith("python3 -m tools.pull_request.comment ") and "\n" not in run
    # What was handed over lies outside the folder whose code runs.
    [download] = using("download-artifact", job)
    assert download["path"].startswith("${{ runner.temp }}/")
    assert '"$RUNNER_TEMP/report/report.md"' in run


def test_a_token_is_handed_to_nothing_but_the_post() -> None:
    for name, step in STEPS:
        if "github.token" in str(step) or "secrets" in str(step):
            assert name.endswith("/comment"), step
    assert not [name for name, workflow in WORKFLOWS.items() if "secrets." in str(workflow)]


def test_nothing_runs_a_strangers_code_with_rights() -> None:
    triggers = {name: set(workflow[True]) for name, workflow in WORKFLOWS.items()}
    assert triggers == {
        "comment": {"workflow_run"},
        "experiment": {"workflow_dispatch"},
        "report": {"push", "pull_request"},
        "tests": {"push", "pull_request"},
    }


def test_nothing_is_put_into_a_shells_text() -> None:
    assert [step["run"] for _, step in STEPS if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("script", [step["run"] for _, step in STEPS if "run" in step])
def test_every_script_is_bash(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_every_job_has_a_time_limit() -> None:
    assert [name for name, job in JOBS.items() if not 0 < job.get("timeout-minutes", 0) <= 90] == []


def test_every_action_is_githubs_own_by_version_and_no_checkout_keeps_a_token() -> None:
    uses = [step["uses"] for _, step in STEPS if "uses" in step]
    assert [name for name in uses if not re.fullmatch(r"actions/[\w-]+@v\d+", name)] == []
    versions: dict[str, str] = {}
    for name, version in (use.split("@") for use in uses):
        assert versions.setdefault(name, version) == version, f"{name} in two versions"
    for job in JOBS:
        assert all(checkout["persist-credentials"] is False for checkout in using("checkout", job))


def test_the_comment_follows_the_report_and_finds_what_it_handed_over() -> None:
    assert WORKFLOWS["comment"][True]["workflow_run"]["workflows"] == [WORKFLOWS["report"]["name"]]
    for made, posted in (("report/report", "comment/comment"), ("experiment/experiment", "experiment/comment")):
        [download] = using("download-artifact", posted)
        uploads = {upload["name"]: upload["path"] for upload in using("upload-artifact", made)}
        assert uploads[download["name"]] == "${{ runner.temp }}/report.md"
        [script] = [step["run"] for step in JOBS[made]["steps"] if step.get("name") == "Report"]
        assert '> "$RUNNER_TEMP/report.md"' in script
        assert '>> "$GITHUB_STEP_SUMMARY"' in script
    [download] = using("download-artifact", "comment/comment")
    assert download["run-id"] == "${{ github.event.workflow_run.id }}"


def test_both_jobs_that_train_keep_the_same_cache() -> None:
    [report], [experiment] = using("cache", "report/report"), using("cache", "experiment/experiment")
    assert report == experiment
    assert report["path"] == ".dvc/cache"
    assert "'dvc.lock'" in report["key"]
    assert report["key"].startswith(report["restore-keys"])
