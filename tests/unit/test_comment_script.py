"""The script that posts comments, run by Node.js against a server here that speaks as much of GitHub as it is asked."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.helpers import ROOT, serving
from tools.pull_request import comment

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not here; GitHub's machines have it")

BOT = {"login": "github-actions[bot]"}
MARKER = "<!-- mnist-cnn: pull request -->\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# What actions/github-script hands to a script, as far as it is used: GitHub's calls, pages, repeated requests.
HARNESS = """
const ask = async (method, address, { retries = 3 } = {}, body) => {
  const answer = await fetch(process.env.API + address, { method, body: body && JSON.stringify(body) });
  if (answer.status >= 500 && retries) return ask(method, address, { retries: retries - 1 }, body);
  if (!answer.ok) throw new Error(`${method} ${address}: ${answer.status}`);
  return { data: await answer.json() };
};
const list = (path) => ({ owner, repo, issue_number, request, ...query }) =>
  ask('GET', `/repos/${owner}/${repo}/${path(issue_number)}?${new URLSearchParams(query)}`, request);
const paginate = async (endpoint, options, page = 1) => {
  const { data } = await endpoint({ ...options, page });
  return data.length < options.per_page ? data : [...data, ...(await paginate(endpoint, options, page + 1))];
};
const rest = {
  issues: {
    listComments: list((number) => `issues/${number}/comments`),
    createComment: ({ owner, repo, issue_number, body, request }) =>
      ask('POST', `/repos/${owner}/${repo}/issues/${issue_number}/comments`, request, { body }),
    updateComment: ({ owner, repo, comment_id, body, request }) =>
      ask('PATCH', `/repos/${owner}/${repo}/issues/comments/${comment_id}`, request, { body }),
  },
  pulls: { list: list(() => 'pulls') },
};
const context = { repo: { owner: 'owner', repo: 'project' }, payload: JSON.parse(process.env.EVENT) };
const arguments_ = { github: { rest, paginate }, context, core: { info: console.log } };
require('./.github/scripts/comment.js')(arguments_).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
"""


class GitHub:
    """The comments on pull request 7 and the pull requests of a repository, and a run of the script upon an event.

    ``faults`` are answers to the next requests in place of what they get; with ``lost`` they are done all the same.
    """

    def __init__(self, folder: Path) -> None:
        self.comment = folder / "comment.md"
        self.event: dict[str, Any] = {
            "workflow_run": {
                "head_sha": COMMIT,
                "head_branch": "a/b&c",
                "head_repository": {"owner": {"login": "somebody"}},
                "pull_requests": [{"number": 1}],
            }
        }
        self.pulls = [{"number": 7, "state": "open", "from": "somebody:a/b&c", "head": {"sha": COMMIT}}]
        self.comments: list[dict[str, Any]] = []
        self.writes: list[str] = []
        self.faults: list[int] = []
        self.lost = False
        self.address = ""

    def say(self, body: str, user: dict[str, Any] | None = BOT) -> dict[str, Any]:
        number = len(self.comments)
        said = {"id": 100 + number, "user": user, "body": body, "html_url": f"https://github.com/pull/7#{number}"}
        self.comments.append(said)
        return said

    @property
    def bodies(self) -> list[str]:
        return [said["body"] for said in self.comments]

    def answer(self, method: str, path: str, query: dict[str, str], sent: dict[str, str]) -> Any:  # noqa: ANN401
        if method != "GET":
            self.writes.append(f"{method} {path}")
        match method, path:
            case "GET", "issues/7/comments":
                found = self.comments
            case "GET", "pulls":
                found = [
                    pull for pull in self.pulls if (pull["state"], pull["from"]) == (query["state"], query["head"])
                ]
            case "POST", "issues/7/comments":
                return self.say(sent["body"])
            case "PATCH", _:
                [known] = [said for said in self.comments if path == f"issues/comments/{said['id']}"]
                known["body"] = sent["body"]
                return known
            case _:
                return None
        size, page = int(query["per_page"]), int(query["page"])
        assert size <= 100
        return found[(page - 1) * size : page * size]

    def post(self, body: str = f"{MARKER}text\n", pull_request: str = "") -> subprocess.CompletedProcess[str]:
        self.comment.write_text(body)
        environment = {
            "PATH": os.environ["PATH"],
            "API": self.address,
            "COMMENT": str(self.comment),
            "EVENT": json.dumps(self.event),
            "PULL_REQUEST": pull_request,
        }
        return subprocess.run([NODE or "", "-e", HARNESS], cwd=ROOT, env=environment, capture_output=True, text=True)

    def posted(self, body: str = f"{MARKER}text\n", pull_request: str = "") -> str:
        """What the script says of a post that succeeds."""
        ended = self.post(body, pull_request)
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout.strip()


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHub]:
    github = GitHub(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            url = urlsplit(self.path)
            sent = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
            query = {name: value for name, [value] in parse_qs(url.query).items()}
            fault = github.faults.pop(0) if github.faults else 0
            path = url.path.removeprefix("/repos/owner/project/")
            found = github.answer(self.command, path, query, sent) if not fault or github.lost else None
            body = json.dumps(found).encode()
            self.send_response(fault or (404 if found is None else 200))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as github.address:
        yield github


def test_a_report_gets_one_comment_that_is_updated_in_place(
    github: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the report as it was handed over to what GitHub has."""
    monkeypatch.setenv("RUN_URL", "https://github.com/owner/project/actions/runs/5")
    github.say("hello", {"login": "somebody"})
    for text in ("one", "two", "ask @owner, pull request 8 ✅"):
        (tmp_path / "report.md").write_text(text)
        comment.main(tmp_path / "report.md", "pull request", tmp_path / "written.md")
        assert github.posted((tmp_path / "written.md").read_text()) == "https://github.com/pull/7#1"
    assert github.writes == ["POST issues/7/comments", *["PATCH issues/comments/101"] * 2]
    [hello, told] = github.bodies
    assert hello == "hello"
    assert told.startswith(MARKER) and told.endswith("\n\nask @\u2060owner, pull request 8 ✅")


@pytest.mark.parametrize("before", [99, 100, 250])
def test_the_comment_is_found_on_any_page_and_with_other_line_ends(github: GitHub, before: int) -> None:
    for number in range(before):
        github.say(f"comment {number}", {"login": "somebody"})
    own = github.say(MARKER.replace("\n", "\r\n") + "old")
    github.posted(MARKER + "new")
    assert own["body"] == MARKER + "new"
    assert len(github.writes) == 1


def test_comments_of_others_and_on_other_topics_are_left_alone(github: GitHub) -> None:
    for user in ({"login": "somebody"}, {"login": "github-actions"}, None):
        github.say(MARKER + "mine", user)
    github.say("see " + MARKER)
    github.say("<!-- mnist-cnn: pull requests -->\nx")
    before = github.bodies
    github.posted(MARKER + "new")
    assert github.bodies == [*before, MARKER + "new"]


@pytest.mark.parametrize(
    "change",
    [
        {"head_sha": "f" * 40},  # no longer the last commit
        {"head_branch": "main"},
        {"head_repository": {"owner": {"login": "another"}}},
        {"head_repository": None},  # deleted
    ],
)
def test_what_is_no_open_pull_requests_last_commit_is_not_posted(github: GitHub, change: dict[str, Any]) -> None:
    github.pulls.append({"number": 8, "state": "closed", "from": "somebody:main", "head": {"sha": COMMIT}})
    github.event["workflow_run"] |= change
    assert "nothing to post" in github.posted()
    assert github.writes == []


def test_a_commit_of_several_pull_requests_is_refused(github: GitHub) -> None:
    github.pulls.append(github.pulls[0] | {"number": 9})
    ended = github.post()
    assert (ended.returncode, github.writes) == (1, [])
    assert ended.stderr.startswith("somebody:a/b&c: several pull requests, #7, #9: ")


def test_an_experiments_report_goes_to_the_number_that_was_typed_in(github: GitHub) -> None:
    github.say(MARKER + "the pull request's own")
    github.event = {"inputs": {"pull_request": " 7 "}}
    for run, text in (("run-1", "one"), ("run-2", "two"), ("run-1", "three")):
        github.posted(f"<!-- mnist-cnn: experiment {run} -->\n{text}", " 7 ")
    assert github.bodies[1:] == [
        "<!-- mnist-cnn: experiment run-1 -->\nthree",
        "<!-- mnist-cnn: experiment run-2 -->\ntwo",
    ]
    for typed in ("", "0", "7/comments", "-1", "7 8", "٧"):
        ended = github.post(pull_request=typed)
        assert ended.returncode == 1
        assert "is not a pull request's number" in ended.stderr
    assert len(github.writes) == 3


def test_a_file_without_a_marker_is_not_posted(github: GitHub) -> None:
    ended = github.post("text\n" + MARKER)
    assert (ended.returncode, github.writes) == (1, [])
    assert "the first line is no marker" in ended.stderr


def test_what_passes_is_waited_for_but_a_comment_is_never_made_twice(github: GitHub) -> None:
    github.faults = [502, 502]
    github.posted()
    assert len(github.comments) == 1
    github.comments.clear()
    github.faults, github.lost = [0, 0, 502], True  # pull requests, comments; the new one is made, and the answer lost
    assert github.post().returncode == 1
    assert len(github.comments) == 1
