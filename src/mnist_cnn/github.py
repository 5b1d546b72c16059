"""A report as the comment of a pull request on GitHub. Needs Python's own library alone."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, urlencode

from mnist_cnn.errors import InputError

# GitHub's limit for a comment.
MOST_CHARACTERS = 65_536
# The user in whose name a workflow writes.
_BOT = "github-actions[bot]"
_TRIES, _PAUSE_S, _TIMEOUT_S = 3, 2.0, 30
_A_PAGE = 100


class GitHub:
    """The calls of one repository's API that a comment needs.

    Source: "REST API endpoints for issue comments", https://docs.github.com/en/rest/issues/comments

    Args:
        api: its address.
        repository: ``owner/name``.
        token: goes into a header and nowhere else.
        wait: called with the seconds to wait before another try.
    """

    def __init__(self, api: str, repository: str, token: str, wait: Callable[[float], object] = time.sleep) -> None:
        self._root = f"{api.rstrip('/')}/repos/{repository}"
        self._token = token
        self._wait = wait

    def open_pull_request(self, owner: str, branch: str, commit: str) -> int | None:
        """The number of the open pull request from a branch of ``owner``'s; None if it is not at ``commit`` now."""
        for pull in self._call("GET", f"/pulls?{urlencode({'state': 'open', 'head': f'{owner}:{branch}'})}"):
            if pull["head"]["sha"] == commit:
                return int(pull["number"])
        return None

    def comment(self, pull_request: int, text: str, marker: str) -> str:
        """Write the comment that bears ``marker``, or write it anew in place; returns its address."""
        sign = f"<!-- {marker} -->"
        body = {"body": f"{sign}\n{text}"}
        for comment in self._comments(pull_request):
            if comment["user"]["login"] == _BOT and comment["body"].startswith(sign):
                return str(self._call("PATCH", f"/issues/comments/{int(comment['id'])}", body)["html_url"])
        return str(self._call("POST", f"/issues/{pull_request}/comments", body)["html_url"])

    def _comments(self, pull_request: int) -> list[dict[str, Any]]:
        comments: list[dict[str, Any]] = []
        for page in range(1, 1000):
            part = self._call("GET", f"/issues/{pull_request}/comments?per_page={_A_PAGE}&page={page}")
            comments += part
            if len(part) < _A_PAGE:
                break
        return comments

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
        """What the server answers, from JSON. What may pass is tried again; the rest is an InputError."""
        request = urllib.request.Request(
            self._root + quote(path, safe="/?&=%:"),
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Accept": "application/vnd.github+json"},
        )
        for left in reversed(range(_TRIES)):
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                fault, may_pass = f"status {error.code} {error.reason}", error.code >= 500 or error.code == 429
            except ValueError:
                fault, may_pass = "not JSON", False
            except (OSError, HTTPException) as error:  # no connection, a time-out, an answer that breaks off
                fault, may_pass = str(getattr(error, "reason", error)), method != "POST"
            if not may_pass or not left:
                break
            self._wait(_PAUSE_S)
        raise InputError(f"{method} {self._root}{path}: {fault}")


def fitted(page: str, whole: str) -> str:
    """A page of Markdown as long as a comment may be: cut between two lines, with the address of the whole.

    What is open where it is cut, a fence or ``<details>``, is closed.
    """
    most = MOST_CHARACTERS - 1000
    if len(page) <= most:
        return page
    kept: list[str] = []
    room = most
    for line in page.split("\n"):
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    text = "\n".join(kept)
    fence = "\n```" if sum(line.startswith("```") for line in kept) % 2 else ""
    details = "\n\n</details>" * (text.count("<details>") - text.count("</details>"))
    return f"{text}{fence}{details}\n\n**Cut here: the report is too long for a comment. [The whole]({whole})**\n"
