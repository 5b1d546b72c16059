"""What the linters of `make check` do not know of the workflows: what they may do, and that they fit together."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_cnn.common.platforms import NEWEST, OLDEST
from tests.helpers import ROOT

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
    actions = [step["uses"].split("@")[0] for step in JOBS[job]["steps"] if "uses" in step]
    assert actions == ["actions/checkout", "actions/download-artifact", "actions/github-script"]
    [checkout], [download], [post] = (using(name.removeprefix("actions/"), job) for name in actions)
    assert checkout == {"ref": "${{ github.event.repository.default_branch }}", "persist-credentials": False}
    # What was handed over lies outside the folder whose code runs.
    assert download["path"] == "${{ runner.temp }}/report"
    [write] = [step["run"] for step in JOBS[job]["steps"] if "run" in step]
    [topic] = re.findall(
        r'python3 -m tools\.pull_request\.comment --topic "([\w $]+)" '
        r'--report "\$RUNNER_TEMP/report/report\.md" --out "\$RUNNER_TEMP/comment\.md"',
        write,
    )
    assert write.endswith('/comment.md"') and "\n" not in write
    assert topic == ("pull request" if job == "comment/comment" else "experiment $EXPERIMENT")
    assert post == {
        "retries": 3,
        "script": "return await require('./.github/scripts/comment.js')({github, context, core})",
    }
    assert JOBS[job]["steps"][-1]["env"]["COMMENT"] == "${{ runner.temp }}/comment.md"


def test_a_job_that_may_write_needs_nothing_installed() -> None:
    """Nothing is installed there: the script requires what Node.js has. Of the module a test of its own tells."""
    script = (FOLDER.parent / "scripts/comment.js").read_text()
    assert re.findall(r"require\('(.*?)'\)", script) == ["node:fs"]


def test_a_token_is_handed_to_nothing_but_the_download_from_another_run() -> None:
    told = [(name, step["uses"]) for name, step in STEPS if "github.token" in str(step)]
    assert [(name, use.split("@")[0]) for name, use in told] == [("comment/comment", "actions/download-artifact")]
    assert [name for name, workflow in WORKFLOWS.items() if "secrets." in str(workflow)] == []


def test_nothing_runs_a_strangers_code_with_rights() -> None:
    triggers = {name: set(workflow[True]) for name, workflow in WORKFLOWS.items()}
    assert triggers == {
        "comment": {"workflow_run"},
        "experiment": {"workflow_dispatch"},
        "report": {"push", "pull_request"},
        "tests": {"push", "pull_request"},
    }


def test_nothing_is_put_into_a_shells_or_a_scripts_text() -> None:
    scripts = [step.get("run") or step.get("with", {}).get("script", "") for _, step in STEPS]
    assert [script for script in scripts if "${{" in script] == []


@pytest.mark.parametrize("script", [step["run"] for _, step in STEPS if "run" in step])
def test_every_script_is_bash(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_every_job_has_a_time_limit() -> None:
    assert [name for name, job in JOBS.items() if not 0 < job.get("timeout-minutes", 0) <= 90] == []


def test_every_action_is_githubs_own_by_version_and_no_checkout_keeps_a_token() -> None:
    uses = [step["uses"] for _, step in STEPS if "uses" in step]
    assert [name for name in uses if not re.fullmatch(r"actions/[\w-]+(/\w+)?@v\d+", name)] == []
    versions: dict[str, str] = {}
    for name, version in (re.split("(?:/restore|/save)?@", use) for use in uses):
        assert versions.setdefault(name, version) == version, f"{name} in two versions"
    for job in JOBS:
        assert all(checkout["persist-credentials"] is False for checkout in using("checkout", job))
    assert versions["actions/github-script"] == "v8"


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


def caches(action: str, path: str) -> dict[str, dict[str, Any]]:
    """By job, the step that restores or saves the cache of a folder; a job has one of a kind at most."""
    found = [
        (name, step)
        for name, step in STEPS
        if step.get("uses", "").startswith(f"actions/{action}@") and step["with"]["path"] == path
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_main_alone_saves_caches() -> None:
    """Those of a pull request would push main's out of the room that GitHub has."""
    savers = {name for name, step in STEPS if re.match("actions/cache(/save)?@", step.get("uses", ""))}
    assert savers == {"report/report"}
    # It saves one for each Python, and for pull requests, too.
    assert [name for name, step in STEPS if "setup-python@" in step.get("uses", "") and "cache" in step["with"]] == []


def test_packages_come_from_one_cache_that_begins_anew_with_other_requirements() -> None:
    restored, saved = caches("cache/restore", "~/.cache/pip"), caches("cache/save", "~/.cache/pip")
    assert restored.keys() == {name for name, step in STEPS if step.get("run") == "make setup"}
    assert len(restored) >= 4 and saved.keys() == {"report/report"}
    [key] = {step["with"]["key"] for step in restored.values()}
    assert re.findall("'(.*?)'", key) == ["requirements.txt"]
    # Without a way to an older one: it would grow from version to version.
    assert [step for step in restored.values() if "restore-keys" in step["with"]] == []
    [step] = saved.values()
    identifier = restored["report/report"]["id"]
    assert step["if"] == (
        f"${{{{ github.ref == 'refs/heads/main' && steps.{identifier}.outputs.cache-hit != 'true' }}}}"
    )
    assert step["with"]["key"] == f"${{{{ steps.{identifier}.outputs.cache-primary-key }}}}"
    # Complete: the set-up is over. And whatever becomes of the models: they come later.
    steps = JOBS["report/report"]["steps"]
    runs = [found.get("run") for found in steps]
    assert runs.index("make setup") + 1 == steps.index(step) < [found.get("id") for found in steps].index("repro")


def test_jobs_that_train_start_from_a_cache_that_main_alone_saves() -> None:
    restored = caches("cache/restore", ".dvc/cache")
    assert restored.keys() == {"report/report", "experiment/experiment"}
    report, experiment = (step["with"] for step in restored.values())
    assert report == experiment
    assert report["key"].startswith(report["restore-keys"])
    # All that DVC looks at to tell whether a stage has run before.
    looked_at = ["dvc.lock", "*.yaml", "requirements.txt", "src/**", "stages/**"]
    assert re.findall("'(.*?)'", report["key"]) == looked_at

    [tidy] = [step for _, step in STEPS if step.get("id") == "tidy"]
    [save] = caches("cache/save", ".dvc/cache").values()
    assert tidy["run"] == f".venv/bin/python -m tools.tidy --lock dvc.lock --cache {report['path']}"
    assert "always()" in tidy["if"] and "github.ref == 'refs/heads/main'" in tidy["if"]
    # After a model has failed, too, and then under a name of its own.
    assert save["if"] == "${{ always() && steps.tidy.outcome == 'success' }}"
    assert "'{0}' || '{0}-partial-{1}-{2}'" in save["with"]["key"]


@pytest.mark.parametrize("name", ["run-1", "a new_one 2.0", "a--b", "a -->", "-", "$(x)"])
def test_a_name_that_no_comment_can_have_is_refused_before_anything_is_set_up(tmp_path: Path, name: str) -> None:
    scripts = [step.get("run", "") for step in JOBS["experiment/experiment"]["steps"]]
    [check] = [script for script in scripts if "tools.pull_request.topic" in script]
    assert scripts.index(check) < scripts.index("make setup")
    [write] = [step["run"] for step in JOBS["experiment/comment"]["steps"] if "run" in step]
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.md").write_text("x")
    # Where nothing is installed.
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "EXPERIMENT": name, "RUN_URL": "u", "RUNNER_TEMP": str(tmp_path)}
    ended = [
        subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
        for script in (check, write)
    ]
    assert [run.returncode for run in ended] == [0 if name in ("run-1", "a new_one 2.0") else 1] * 2
    assert ended[0].stderr == ended[1].stderr and len(ended[0].stderr.splitlines()) == ended[0].returncode


def test_every_test_runs_and_unit_tests_on_every_python() -> None:
    tests = FOLDER.parents[1] / "tests"
    folders = {folder.name for folder in tests.iterdir() if any(folder.glob("test_*.py"))}
    ran: dict[str, str] = {}
    for name in ("tests/unit", "tests/pipeline"):
        [script] = [step["run"] for step in JOBS[name]["steps"] if step.get("name") == "Test"]
        ran |= dict.fromkeys(re.findall(r" tests/(\w+)", script), name)
    assert ran == {"unit": "tests/unit", "docs": "tests/unit", "pipeline": "tests/pipeline"}
    assert folders == ran.keys()
    # The oldest that is promised, that of the other jobs, and the newest.
    oldest, newest = (".".join(map(str, version)) for version in (OLDEST, NEWEST))
    assert JOBS["tests/unit"]["strategy"]["matrix"] == {"python": [oldest, "3.11", newest]}
    assert [python["python-version"] for python in using("setup-python", "tests/pipeline")] == ["3.11"]
