"""A report, put on the pull request that a workflow of GitHub's runs for."""

import json
import os
import sys
from pathlib import Path

from mnist_cnn.errors import InputError
from mnist_cnn.github import GitHub, fitted
from stages import cli


def main(report: Path, event: Path) -> None:
    """Write the report as a comment, or write it anew in the comment that is there.

    ``event`` is GitHub's file on what set the workflow off. After another workflow, it says whose branch that one ran
    for: neither the report nor anything else that the pull request's code has made is asked. A run that was started by
    hand names the pull request itself; each such run has a comment of its own.
    """
    github = GitHub(_environment("GITHUB_API_URL"), _environment("GITHUB_REPOSITORY"), _environment("GITHUB_TOKEN"))
    cause = json.loads(event.read_text(encoding="utf-8"))
    if "workflow_run" in cause:
        run = cause["workflow_run"]
        marker, whole = "results of this change", run["html_url"]
        commit = run["head_sha"]
        number = github.open_pull_request(run["head_repository"]["owner"]["login"], run["head_branch"], commit)
        if number is None:
            print(f"[INFO] no open pull request is at {commit}: nothing to comment on")
            return
    else:
        marker = f"experiment {_environment('GITHUB_RUN_ID')}"
        whole = "/".join(
            [_environment("GITHUB_SERVER_URL"), _environment("GITHUB_REPOSITORY"), "actions/runs", marker.split()[1]]
        )
        number = _number(cause["inputs"]["pull_request"])
    page = fitted(report.read_text(encoding="utf-8"), whole)
    print(f"[INFO] {github.comment(number, page, marker)}")


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise InputError(f"pull_request: {text!r} is not allowed: the number of a pull request")
    return int(text)


def _environment(name: str) -> str:
    if not os.environ.get(name):
        sys.exit(f"error: {name}: not set; GitHub sets it for its workflows")
    return os.environ[name]


if __name__ == "__main__":
    cli.run(main)
