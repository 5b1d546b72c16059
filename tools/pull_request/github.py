"""A comment on a pull request, by GitHub's API. The standard library alone: this runs where nothing is installed."""

import json
import re
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, NamedTuple, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

from mnist_cnn.common.errors import InputError

# GitHub takes 65,536 characters. Bytes are never fewer, so whatever it counts as a character, this many fit.
LONGEST_BYTES = 65_536
# Who comments with the token that a workflow gets.
_BOT = "github-actions[bot]"
_PAGE = 100  # the most that GitHub gives at a time
_Answer = TypeVar("_Answer")


class Repository(NamedTuple):
    """A repository ``name`` (owner/name) at the API at ``address``, to be spoken to with ``token``."""

    address: str
    name: str
    token: str
    timeout_s: float = 30
    # How long to wait before each further attempt, where GitHub is out of order for a moment.
    pauses_s: tuple[float, ...] = (1, 5, 15)


class _Unavailable(InputError):
    """GitHub is out of order for a moment, or cannot be reached."""


def open_pull_requests(repository: Repository, owner: str, branch: str, commit: str) -> list[int]:
    """Numbers of the open pull requests from a branch of ``owner``'s whose last commit is ``commit``.

    Raises:
        InputError: GitHub refuses, or cannot be reached.
    """
    # GitHub's own way from a commit to its pull requests knows nothing of commits in forks.
    query = urlencode({"state": "open", "head": f"{owner}:{branch}", "per_page": _PAGE})
    found = _patiently(repository, lambda: _ask(repository, "GET", f"pulls?{query}"))
    return [pull["number"] for pull in found if pull["head"]["sha"] == commit]


def publish(repository: Repository, pull_request: int, topic: str, text: str, cut: str) -> str:
    """Put a text into the bot's comment on ``topic``, or into a new one where there is none; returns its address.

    Args:
        cut: what to say at the end of a text that is too long for a comment.

    Raises:
        InputError: GitHub refuses, or cannot be reached.
    """
    marker = f"<!-- mnist-cnn: {topic} -->\n"
    content = {"body": fitting(marker + text, cut)}

    # Attempted as a whole: of an answer that was lost nobody knows whether the comment was made, so look again first.
    def attempt() -> str:
        known = _find(repository, pull_request, marker)
        if known is None:
            return str(_ask(repository, "POST", f"issues/{pull_request}/comments", content)["html_url"])
        return str(_ask(repository, "PATCH", f"issues/comments/{known}", content)["html_url"])

    return _patiently(repository, attempt)


def _find(repository: Repository, pull_request: int, marker: str) -> int | None:
    """The bot's comment that starts with a marker. Others may write the marker, too: theirs are left alone."""
    page = 1
    while True:
        path = f"issues/{pull_request}/comments?{urlencode({'per_page': _PAGE, 'page': page})}"
        comments = _ask(repository, "GET", path)
        for comment in comments:
            author = (comment["user"] or {}).get("login")
            # GitHub may give lines other ends than it was given.
            if author == _BOT and comment["body"].replace("\r\n", "\n").startswith(marker):
                return int(comment["id"])
        if len(comments) < _PAGE:
            return None
        page += 1


def _patiently(repository: Repository, attempt: Callable[[], _Answer]) -> _Answer:
    for pause in repository.pauses_s:
        try:
            return attempt()
        except _Unavailable:
            time.sleep(pause)
    return attempt()


class _Stay(HTTPRedirectHandler):
    """Goes nowhere else, and takes the token nowhere else."""

    def redirect_request(self, *_: object) -> None:
        """No request: being sent elsewhere counts as refused."""


def _ask(repository: Repository, method: str, path: str, content: dict[str, str] | None = None) -> Any:  # noqa: ANN401
    """What GitHub answers, as JSON."""
    request = Request(
        f"{repository.address}/repos/{quote(repository.name)}/{path}",
        method=method,
        data=None if content is None else json.dumps(content).encode(),
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {repository.token}",
            "Content-Type": "application/json",
        },
    )
    asked = f"GitHub, {method} {path.partition('?')[0]}"
    try:
        with build_opener(_Stay).open(request, timeout=repository.timeout_s) as response:
            return json.load(response)
    except HTTPError as error:
        with error:
            said = _message(error.read(2000)).replace(repository.token, "***")
        kind = _Unavailable if error.code >= 500 or error.code == 429 else InputError
        raise kind(f"{asked}: {error.code} {said}") from None
    except (OSError, HTTPException) as error:
        raise _Unavailable(f"{asked}: {getattr(error, 'reason', error)}") from None
    except ValueError:
        raise InputError(f"{asked}: the answer is no JSON") from None


def _message(answer: bytes) -> str:
    """GitHub's own word on what is wrong, in one line."""
    try:
        text = json.loads(answer)["message"]
    except (ValueError, TypeError, KeyError):
        text = answer.decode(errors="replace")
    return " ".join(str(text).split())[:200]


def harmless(text: str) -> str:
    """Text that others wrote, without characters that are not seen, and without calling anybody by name."""
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", "", text)
    # A word joiner, which nobody sees, before the name; 'train@model_1' calls nobody. Names are looked for in the HTML
    # that Markdown has become, so character references count.
    return re.sub(r"(?<!\w)@(?=[\w&])|&(?:#0*64|#[xX]0*40|commat);", "\\g<0>\u2060", text)


def fitting(text: str, ending: str, longest: int = LONGEST_BYTES) -> str:
    """The text, or as many of its lines as fit with ``ending`` behind them; what is open there is closed.

    Args:
        longest: in bytes of UTF-8.
    """
    if _size(text) <= longest:
        return text
    lines = text.splitlines(keepends=True)
    kept, end, size, fence, folds = 0, ending, 0, "", 0
    for count, (line, following) in enumerate(zip(lines, [*lines[1:], ""], strict=True), start=1):
        size += _size(line)
        if size > longest:
            break
        opened = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if opened and not fence:
            fence = opened[1]
        elif opened and opened[1].startswith(fence) and line.strip() == opened[1]:
            fence = ""
        elif not fence:
            folds += line.count("<details") - line.count("</details>")
        if "-" in following and set(following) <= set("|:- \n"):
            continue  # A table without the line below its header is none.
        closing = (f"{fence}\n" if fence else "") + "\n" + "</details>\n\n" * folds + ending
        if size + _size(closing) <= longest:
            kept, end = count, closing
    return "".join(lines[:kept]) + end


def _size(text: str) -> int:
    return len(text.encode())
