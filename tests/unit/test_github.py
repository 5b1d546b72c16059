"""Comments, on a server of our own that speaks the few calls they need."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mnist_cnn.errors import InputError
from mnist_cnn.github import MOST_CHARACTERS, GitHub, fitted

ROOT = Path(__file__).parents[2]
TOKEN = "a-secret-token"
BOT, SOMEBODY = "github-actions[bot]", "somebody"


class Server(ThreadingHTTPServer):
    """A repository ``o/r`` with one open pull request, number 7, from the branch ``them:fix``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.comments: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.faults: list[int] = []  # the statuses of the next answers
        self.not_json = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, login: str, body: str) -> dict[str, Any]:
        number = len(self.comments) + 1
        self.comments.append({"id": number, "user": {"login": login}, "body": body, "html_url": f"comment/{number}"})
        return self.comments[-1]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        self.server.calls.append(f"{self.command} {parts.path}")
        status = 404
        answer: object = {"message": "Not Found"}
        if self.server.faults:
            status = self.server.faults.pop(0)
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            status = 401
        elif (self.command, parts.path) == ("GET", "/repos/o/r/pulls"):
            pulls = [{"number": 7, "head": {"sha": "c0ffee"}}]
            status, answer = 200, pulls if query == {"state": "open", "head": "them:fix/ü"} else []
        elif (self.command, parts.path) == ("GET", "/repos/o/r/issues/7/comments"):
            size, page = int(query["per_page"]), int(query["page"])
            status, answer = 200, self.server.comments[size * (page - 1) : size * page]
        elif (self.command, parts.path) == ("POST", "/repos/o/r/issues/7/comments"):
            status, answer = (201, self.server.add(BOT, body["body"])) if len(body["body"]) <= 65_536 else (422, {})
        elif self.command == "PATCH" and parts.path.startswith("/repos/o/r/issues/comments/"):
            comment = self.server.comments[int(parts.path.split("/")[-1]) - 1]
            comment["body"] = body["body"]
            status, answer = 200, comment
        content = b"<html>" if self.server.not_json else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def github(server: Server) -> GitHub:
    return GitHub(server.address, "o/r", TOKEN, wait=lambda seconds: None)


def test_a_comment_is_created_once_and_then_kept_up_to_date(server: Server, github: GitHub) -> None:
    first = github.comment(7, "one", "m")
    assert github.comment(7, "two", "m") == first
    assert [comment["body"] for comment in server.comments] == ["<!-- m -->\ntwo"]
    assert github.comment(7, "of another kind", "n") != first
    assert len(server.comments) == 2


def test_it_is_found_on_a_later_page(server: Server, github: GitHub) -> None:
    for place in range(150):
        server.add(SOMEBODY, f"talk {place}")
    github.comment(7, "one", "m")
    for place in range(80):
        server.add(SOMEBODY, f"talk {place}")
    github.comment(7, "two", "m")
    assert [comment["body"] for comment in server.comments if comment["user"]["login"] == BOT] == ["<!-- m -->\ntwo"]


def test_another_users_comment_with_the_same_mark_is_not_touched(server: Server, github: GitHub) -> None:
    server.add(SOMEBODY, "<!-- m -->\nmine")
    github.comment(7, "one", "m")
    assert [comment["body"] for comment in server.comments] == ["<!-- m -->\nmine", "<!-- m -->\none"]


def test_the_pull_request_is_the_one_whose_branch_is_at_the_commit(github: GitHub) -> None:
    assert github.open_pull_request("them", "fix/ü", "c0ffee") == 7
    assert github.open_pull_request("them", "fix/ü", "decaf") is None
    assert github.open_pull_request("them", "other", "c0ffee") is None


def test_what_may_pass_is_tried_again(server: Server, github: GitHub) -> None:
    server.faults = [502, 503]
    github.comment(7, "one", "m")
    assert len(server.comments) == 1 and len(server.calls) == 4


@pytest.mark.parametrize(("status", "calls"), [(403, 1), (404, 1), (500, 3)])
def test_what_does_not_pass_is_told_in_one_line(server: Server, github: GitHub, status: int, calls: int) -> None:
    server.faults = [status] * 9
    with pytest.raises(InputError, match=f"GET .*/issues/7/comments.*: status {status}") as told:
        github.comment(7, "one", "m")
    assert len(server.calls) == calls and TOKEN not in str(told.value) and "\n" not in str(told.value)


def test_an_answer_that_is_no_json_and_a_server_that_is_gone(server: Server, github: GitHub) -> None:
    server.not_json = True
    with pytest.raises(InputError, match="not JSON"):
        github.comment(7, "one", "m")
    nobody = GitHub("http://127.0.0.1:9", "o/r", TOKEN, wait=lambda seconds: None)
    with pytest.raises(InputError, match="Connection refused"):
        nobody.comment(7, "one", "m")


def test_a_too_long_report_is_cut_with_a_link_to_the_whole(server: Server, github: GitHub) -> None:
    short = "a line\n" * 100
    assert fitted(short, "there") == short
    for head, closed in (("", ""), ("```bash\n", "```"), ("<details><summary>x</summary>\n", "</details>")):
        page = head + "| a row | of a table |\n" * 10_000
        text = fitted(page, "https://example.org/run")
        assert len(text) < MOST_CHARACTERS
        assert text.endswith(
            "**Cut here: the report is too long for a comment. [The whole](https://example.org/run)**\n"
        )
        kept = text.split("\n\n")[0].removesuffix("\n```")
        assert set(kept.removeprefix(head).splitlines()) == {"| a row | of a table |"}
        assert closed in text
        github.comment(7, text, "m")


def run(server: Server, tmp_path: Path, event: dict[str, Any], **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a workflow runs it: without this project's packages."""
    (tmp_path / "event.json").write_text(json.dumps(event))
    (tmp_path / "report.md").write_text("the report\n")
    environment = {
        "GITHUB_API_URL": server.address,
        "GITHUB_SERVER_URL": "https://example.org",
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_RUN_ID": "99",
        "GITHUB_TOKEN": TOKEN,
    } | environment
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        "import runpy, sys; sys.path.insert(0, '.'); sys.argv = sys.argv[1:]; ",
    ]
    command[-1] += "runpy.run_module('stages.comment', run_name='__main__', alter_sys=False)"
    command += ["comment", "--report", str(tmp_path / "report.md"), "--event", str(tmp_path / "event.json")]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def after_a_run(commit: str) -> dict[str, Any]:
    head = {"owner": {"login": "them"}}
    run = {"head_repository": head, "head_branch": "fix/ü", "head_sha": commit, "html_url": "https://example.org/run"}
    return {"workflow_run": run}


def test_the_command_comments_on_the_pull_request_that_was_rendered(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        ended = run(server, tmp_path, after_a_run("c0ffee"))
        assert ended.returncode == 0, ended.stderr
    assert [comment["body"] for comment in server.comments] == ["<!-- results of this change -->\nthe report\n"]
    ended = run(server, tmp_path, after_a_run("decaf"))
    assert ended.returncode == 0 and "nothing to comment on" in ended.stdout
    assert len(server.comments) == 1


def test_each_experiment_has_a_comment_of_its_own(server: Server, tmp_path: Path) -> None:
    event = {"inputs": {"settings": "model=model_1", "pull_request": "7"}}
    for number in ("1", "2", "2"):
        assert run(server, tmp_path, event, GITHUB_RUN_ID=number).returncode == 0
    assert len(server.comments) == 2


@pytest.mark.parametrize(
    ("event", "environment", "told"),
    [
        ({"inputs": {"pull_request": "7; rm"}}, {}, "error: pull_request: '7; rm' is not allowed"),
        (after_a_run("c0ffee"), {"GITHUB_TOKEN": "another"}, "status 401"),
        (after_a_run("c0ffee"), {"GITHUB_TOKEN": ""}, "error: GITHUB_TOKEN: not set"),
    ],
)
def test_the_command_fails_in_one_line_without_the_token(
    server: Server, tmp_path: Path, event: dict[str, Any], environment: dict[str, str], told: str
) -> None:
    ended = run(server, tmp_path, event, **environment)
    assert ended.returncode == 1
    assert told in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert TOKEN not in ended.stdout + ended.stderr
