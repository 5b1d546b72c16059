"""A report, put into its comment on a pull request: one a topic, updated in place. Needs nothing that is installed.

What it posts is of others' making: it is read as text and nothing else, and which pull request it belongs to is asked
of GitHub.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from tools.pull_request import github

# Of the file; what GitHub takes is a good deal less.
_MOST_BYTES = 1_000_000


def main(report: Path, topic: str) -> None:
    """Post the report on the pull request that the workflow's event is about. Reads what GitHub Actions sets."""
    if not re.fullmatch(r"[A-Za-z0-9][\w. ]*(-[\w. ]+)*", topic):
        raise InputError(f"topic: {topic!r} is not allowed: letters, digits, '_', '.', spaces, single '-'")
    repository = github.Repository(_set("GITHUB_API_URL"), _set("GITHUB_REPOSITORY"), _set("GITHUB_TOKEN"))
    event = json.loads(Path(_set("GITHUB_EVENT_PATH")).read_text(encoding="utf-8"))
    number = _pull_request(event, repository)
    if number is None:
        print("[INFO] No open pull request ends in this commit any more: nothing to post")
        return
    run = event.get("workflow_run", {}).get("html_url") or (
        f"{_set('GITHUB_SERVER_URL')}/{repository.name}/actions/runs/{_set('GITHUB_RUN_ID')}"
    )
    head = f"<sub>Written by the code that it reports on, in [this run]({run}). Replaced when there is news.</sub>\n\n"
    cut = f"**Cut here: too long for a comment. The whole report is on the page of [the run]({run}).**\n"
    print(f"[INFO] {github.publish(repository, number, topic, head + github.harmless(_read(report)), cut)}")


def _pull_request(event: dict[str, Any], repository: github.Repository) -> int | None:
    """The pull request's number: as GitHub tells, or as somebody with write access has asked for."""
    if "workflow_run" not in event:
        asked = str(event["inputs"]["pull_request"]).strip()
        if not re.fullmatch(r"[1-9]\d{0,8}", asked):
            raise InputError(f"pull_request: {asked!r} is not allowed: the number of a pull request")
        return int(asked)
    run = event["workflow_run"]
    if not run["head_repository"]:  # deleted since
        return None
    owner, branch, commit = run["head_repository"]["owner"]["login"], run["head_branch"], run["head_sha"]
    found = github.open_pull_requests(repository, owner, branch, commit)
    if len(found) > 1:
        numbers = ", ".join(f"#{number}" for number in found)
        raise InputError(f"{owner}:{branch}: several pull requests, {numbers}: the report is against one base alone")
    return found[0] if found else None


def _read(report: Path) -> str:
    # A link in what was handed over could lead to any file here.
    if report.is_symlink() or not report.is_file():
        raise InputError(f"{report}: is no file")
    with report.open("rb") as file:
        text = file.read(_MOST_BYTES).decode("utf-8", errors="replace")
    if not text.strip():
        raise InputError(f"{report}: is empty")
    return text


def _set(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise InputError(f"{name}: is not set; GitHub Actions sets it")
    return value


if __name__ == "__main__":
    cli.run(main)
