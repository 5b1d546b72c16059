"""A report in its comment, posted to a server on this machine that speaks as much of GitHub as is asked of it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from markdown_it import MarkdownIt

from mnist_cnn.comments import LONGEST_BYTES, Repository, fitting, harmless, open_pull_requests, publish
from mnist_cnn.common.errors import InputError
from stages import post_report

ROOT = Path(__file__).parents[2]
BOT = {"login": "github-actions[bot]"}
TOKEN = "a-token-that-nobody-may-see"
MARKER = "<!-- mnist-cnn: pull request -->\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class GitHub:
    """The comments on pull request 7 and the open pull requests of a repository, served over HTTP.

    ``faults`` are what the next requests get in place of an answer: a status with a body, or None to hang up;
    ``after`` has the fault come when the request has been done.
    """

    def __init__(self) -> None:
        self.comments: list[dict[str, Any]] = []
        self.pulls: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.faults: list[tuple[int, str] | None] = []
        self.after = False
        self.delay_s = 0.0

    def say(self, body: str, user: dict[str, Any] | None = BOT) -> dict[str, Any]:
        comment = {
            "id": 100 + len(self.comments),
            "user": user,
            "body": body,
            "html_url": f"https://github.com/owner/project/pull/7#{len(self.comments)}",
        }
        self.comments.append(comment)
        return comment

    def answer(self, method: str, path: str, query: dict[str, list[str]], sent: dict[str, Any]) -> tuple[int, Any]:
        if method == "GET" and path == "/repos/owner/project/issues/7/comments":
            page, size = int(query["page"][0]), int(query["per_page"][0])
            return 200, self.comments[(page - 1) * size : page * size]
        if method == "GET" and path == "/repos/owner/project/pulls":
            return 200, [pull for pull in self.pulls if [pull["from"]] == query["head"] and query["state"] == ["open"]]
        if method == "POST" and path == "/repos/owner/project/issues/7/comments":
            return 201, self.say(sent["body"])
        if method == "PATCH" and path.startswith("/repos/owner/project/issues/comments/"):
            [comment] = [known for known in self.comments if known["id"] == int(path.rpartition("/")[2])]
            comment["body"] = sent["body"]
            return 200, comment
        return 404, {"message": "Not Found"}

    @property
    def writes(self) -> list[str]:
        return [line for line in self.asked if not line.startswith("GET")]


@pytest.fixture
def github() -> GitHub:
    return GitHub()


@pytest.fixture
def address(github: GitHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            url = urlsplit(self.path)
            github.asked.append(f"{self.command} {url.path}")
            github.tokens.add(self.headers["Authorization"])
            sent = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
            time.sleep(github.delay_s)
            faulty = bool(github.faults)
            fault = github.faults.pop(0) if faulty else None
            if not faulty or github.after:
                status, found = github.answer(self.command, url.path, parse_qs(url.query), sent)
                body = json.dumps(found)
            if faulty and fault is None:
                return
            if fault:
                status, body = fault
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", body)
            self.send_header("Content-Length", str(len(body.encode())))
            with suppress(ConnectionError):  # who asked may have gone
                self.end_headers()
                self.wfile.write(body.encode())

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def repository(address: str) -> Repository:
    return Repository(address, "owner/project", TOKEN, timeout_s=5, pauses_s=(0, 0))


def post(repository: Repository, text: str) -> str:
    return publish(repository, 7, "pull request", text, "cut")


def test_a_comment_is_made_once_and_then_updated_in_place(github: GitHub, repository: Repository) -> None:
    github.say("hello", {"login": "somebody"})
    first = post(repository, "one")
    assert github.writes == ["POST /repos/owner/project/issues/7/comments"]
    assert post(repository, "two") == post(repository, "three") == first
    assert github.writes[1:] == ["PATCH /repos/owner/project/issues/comments/101"] * 2
    assert [comment["body"] for comment in github.comments] == ["hello", MARKER + "three"]
    assert github.tokens == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("before", [99, 100, 250])
def test_the_comment_is_found_on_any_page(github: GitHub, repository: Repository, before: int) -> None:
    for number in range(before):
        github.say(f"comment {number}", {"login": "somebody"})
    own = github.say(MARKER + "old")
    post(repository, "new")
    assert own["body"] == MARKER + "new"
    assert len(github.writes) == 1
    assert len(github.comments) == before + 1


@pytest.mark.parametrize("user", [{"login": "somebody"}, {"login": "github-actions"}, None])
def test_a_comment_of_anybody_elses_is_left_alone(
    github: GitHub, repository: Repository, user: dict[str, Any] | None
) -> None:
    other = github.say(MARKER + "mine", user)
    post(repository, "new")
    assert other["body"] == MARKER + "mine"
    assert [comment["body"] for comment in github.comments[1:]] == [MARKER + "new"]


def test_a_comment_that_cites_the_marker_or_has_another_topic_is_left_alone(
    github: GitHub, repository: Repository
) -> None:
    said = ["see " + MARKER, "<!-- mnist-cnn: experiment a -->\nx", "<!-- mnist-cnn: pull requests -->\nx"]
    for body in said:
        github.say(body)
    post(repository, "new")
    assert [comment["body"] for comment in github.comments] == [*said, MARKER + "new"]


def test_the_comment_is_known_again_when_github_has_changed_its_line_ends(
    github: GitHub, repository: Repository
) -> None:
    own = github.say((MARKER + "old").replace("\n", "\r\n"))
    post(repository, "new")
    assert own["body"] == MARKER + "new"


def test_a_report_that_is_too_long_is_cut_and_says_so(github: GitHub, repository: Repository) -> None:
    post(repository, "a line of a report\n" * 10_000)
    [comment] = github.comments
    assert len(comment["body"].encode()) <= LONGEST_BYTES
    assert len(comment["body"].encode()) > LONGEST_BYTES - 50
    assert comment["body"].startswith(MARKER)
    assert comment["body"].endswith("a line of a report\n\ncut")


@pytest.mark.parametrize("fault", [(500, "{}"), (502, "<html>bad gateway</html>"), (429, "{}"), None])
def test_what_passes_is_waited_for(github: GitHub, repository: Repository, fault: tuple[int, str] | None) -> None:
    github.faults = [fault, fault]
    post(repository, "one")
    assert [comment["body"] for comment in github.comments] == [MARKER + "one"]


def test_an_answer_that_was_lost_does_not_make_a_second_comment(github: GitHub, repository: Repository) -> None:
    github.after = True
    github.faults = [(200, "[]"), None]  # the list of comments; then the new one is made, and the answer lost
    post(repository, "one")
    assert [comment["body"] for comment in github.comments] == [MARKER + "one"]
    assert [line.split()[0] for line in github.asked] == ["GET", "POST", "GET", "PATCH"]


@pytest.mark.parametrize(
    ("fault", "attempts", "told"),
    [
        ((403, '{"message": "Resource not accessible by integration"}'), 1, "403 Resource not accessible"),
        ((404, '{"message": "Not Found"}'), 1, "404 Not Found"),
        ((401, f'{{"message": "Bad credentials: {TOKEN}"}}'), 1, "401 Bad credentials: ***"),
        ((422, "[]"), 1, "422 []"),
        ((503, "<html>\nno\n</html>"), 3, "503 <html> no </html>"),
        ((200, "<html>"), 1, "the answer is no JSON"),
        ((301, "http://127.0.0.1:1/elsewhere"), 1, "301 "),
        ((307, "http://127.0.0.1:1/elsewhere"), 1, "307 "),
        (None, 3, "Remote end closed connection"),
    ],
)
def test_a_refusal_is_told_in_a_line_without_the_token(
    github: GitHub, repository: Repository, fault: tuple[int, str] | None, attempts: int, told: str
) -> None:
    github.faults = [fault] * 10
    with pytest.raises(InputError) as refused:
        post(repository, "one")
    assert str(refused.value).startswith("GitHub, GET issues/7/comments: ")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert TOKEN not in str(refused.value)
    assert len(github.asked) == attempts


def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(github: GitHub, repository: Repository) -> None:
    github.delay_s = 0.3
    with pytest.raises(InputError, match="timed out"):
        post(repository._replace(timeout_s=0.05, pauses_s=()), "one")


def test_a_server_that_is_not_there_is_told(repository: Repository) -> None:
    with pytest.raises(InputError, match=r"GitHub, GET issues/7/comments: .*refused"):
        post(repository._replace(address="http://127.0.0.1:1"), "one")


def test_a_pull_request_is_found_by_branch_and_last_commit(github: GitHub, repository: Repository) -> None:
    github.pulls = [
        {"number": 6, "from": "somebody:a/b&c", "head": {"sha": "f" * 40}},
        {"number": 7, "from": "somebody:a/b&c", "head": {"sha": COMMIT}},
        {"number": 8, "from": "another:a/b&c", "head": {"sha": COMMIT}},
    ]
    assert open_pull_requests(repository, "somebody", "a/b&c", COMMIT) == [7]
    assert open_pull_requests(repository, "somebody", "main", COMMIT) == []


# Cutting


REPORT = """## Title

| a | b |
| --- | --- |
| 1 | 2 |
| 3 | 4 |

<details>
<summary>More</summary>

| c |
|---|
| 5 |

````bash
```
echo
````

text

</details>

end
"""


@pytest.mark.parametrize("longest", range(60, 260))
def test_a_cut_report_is_whole_markdown(longest: int) -> None:
    """At every length: nothing is left open, no table without a line under its header, and whole lines alone."""
    told = fitting(REPORT, "**cut**\n", longest)
    if longest >= len(REPORT.encode()):
        assert told == REPORT
        return
    assert len(told.encode()) <= longest
    assert told.endswith("**cut**\n")
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(told)
    assert html.count("<details>") == html.count("</details>")
    assert html.endswith("<p><strong>cut</strong></p>\n")
    assert "| a | b |" not in html and "| c |" not in html
    assert set(told.removesuffix("**cut**\n").splitlines()) <= {*REPORT.splitlines(), ""}


def test_as_much_of_a_report_is_kept_as_fits() -> None:
    kept = [len(fitting(REPORT, "**cut**\n", longest)) for longest in range(60, 260)]
    assert kept == sorted(kept)
    assert kept[-1] == len(REPORT)
    assert fitting("x" * 100 + "\n", "cut", 50) == "cut"
    # Characters of several bytes count as what they are.
    assert fitting("é\n" * 20, "cut", 30) == "é\n" * 8 + "\ncut"


def test_nobody_is_called_by_name_and_nothing_is_hidden() -> None:
    assert harmless("ask @owner/team, @a-b") == "ask @\u2060owner/team, @\u2060a-b"
    for sign in ("@", "&#64;", "&#0064;", "&#x40;", "&#X40;", "&commat;"):
        assert harmless(f"ask {sign}owner, {sign}&#111;wner") == f"ask {sign}\u2060owner, {sign}\u2060&#111;wner"
    assert harmless("dvc repro train@model_1 a@b.example") == "dvc repro train@model_1 a@b.example"
    assert harmless("a\x00b\x1b[31mc\u202e\u2028d\r\n\te\x85é✅") == "ab[31mcd\n\teé✅"


# The entry point


@pytest.fixture
def run(address: str, github: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run of the workflow that reports on a fork's pull request: its event, which a test may change."""
    event = {
        "workflow_run": {
            "html_url": "https://github.com/owner/project/actions/runs/5",
            "head_sha": COMMIT,
            "head_branch": "change",
            "head_repository": {"owner": {"login": "somebody"}},
            "pull_requests": [],
        }
    }
    github.pulls = [{"number": 7, "from": "somebody:change", "head": {"sha": COMMIT}}]
    monkeypatch.setenv("GITHUB_API_URL", address)
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/project")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_RUN_ID", "6")
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(tmp_path / "event.json"))
    return event


def posted(run: dict[str, Any], tmp_path: Path, text: bytes = b"## Results\n", topic: str = "pull request") -> None:
    (tmp_path / "event.json").write_text(json.dumps(run))
    (tmp_path / "report.md").write_bytes(text)
    post_report.main(tmp_path / "report.md", topic)


def test_a_report_reaches_the_pull_request_that_github_names(
    run: dict[str, Any], github: GitHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    posted(run, tmp_path, "## Results\n\nPull request 8, @owner ✅\n".encode())
    [comment] = github.comments
    head, _, rest = comment["body"].removeprefix(MARKER).partition("\n\n")
    assert "[this run](https://github.com/owner/project/actions/runs/5)" in head
    assert rest == "## Results\n\nPull request 8, @\u2060owner ✅\n"
    assert capsys.readouterr().out == f"[INFO] {comment['html_url']}\n"
    assert github.writes == ["POST /repos/owner/project/issues/7/comments"]


def test_a_report_on_a_commit_that_is_no_longer_the_last_is_not_posted(
    run: dict[str, Any], github: GitHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    github.pulls[0]["head"]["sha"] = "f" * 40
    posted(run, tmp_path)
    run["workflow_run"]["head_repository"] = None
    posted(run, tmp_path)
    assert github.writes == []
    assert capsys.readouterr().out.count("nothing to post") == 2


def test_a_commit_of_several_pull_requests_is_refused(run: dict[str, Any], github: GitHub, tmp_path: Path) -> None:
    github.pulls.append(github.pulls[0] | {"number": 9})
    with pytest.raises(InputError, match="somebody:change: several pull requests, #7, #9"):
        posted(run, tmp_path)
    assert github.writes == []


def test_an_experiments_report_goes_where_it_is_asked_to_in_a_comment_of_its_own(
    run: dict[str, Any], github: GitHub, tmp_path: Path
) -> None:
    posted(run, tmp_path)
    asked = {"inputs": {"settings": "", "name": "", "pull_request": " 7 "}}
    posted(asked, tmp_path, b"one", "experiment run-1")
    posted(asked, tmp_path, b"two", "experiment run-2")
    posted(asked, tmp_path, b"three", "experiment run-1")
    assert [comment["body"].split("\n")[0] for comment in github.comments] == [
        MARKER.strip(),
        "<!-- mnist-cnn: experiment run-1 -->",
        "<!-- mnist-cnn: experiment run-2 -->",
    ]
    assert github.comments[1]["body"].endswith("three")
    assert "actions/runs/6)" in github.comments[1]["body"]


@pytest.mark.parametrize("number", ["", "0", "7/comments", "-1", "7 8", "٧", None])
def test_only_a_number_is_a_pull_requests_number(
    run: dict[str, Any], github: GitHub, tmp_path: Path, number: str | None
) -> None:
    with pytest.raises(InputError, match="is not allowed: the number of a pull request"):
        posted({"inputs": {"pull_request": number}}, tmp_path)
    assert github.asked == []


@pytest.mark.parametrize("topic", ["", "a --> b", "a--b", "-a", "a-", "a\nb", "<a>"])
def test_a_topic_that_would_leave_its_marker_is_refused(
    run: dict[str, Any], github: GitHub, tmp_path: Path, topic: str
) -> None:
    with pytest.raises(InputError, match="topic: "):
        posted(run, tmp_path, topic=topic)
    assert github.asked == []


def test_a_report_that_is_a_link_or_missing_or_empty_is_refused(
    run: dict[str, Any], github: GitHub, tmp_path: Path
) -> None:
    (tmp_path / "event.json").write_text(json.dumps(run))
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link.md").symlink_to(tmp_path / "secret")
    (tmp_path / "empty.md").write_text(" \n")
    for name, fault in (("link.md", "is no file"), ("missing.md", "is no file"), ("empty.md", "is empty")):
        with pytest.raises(InputError, match=fault):
            post_report.main(tmp_path / name, "pull request")
    assert github.writes == []


def test_a_report_that_is_no_text_is_posted_as_far_as_it_is(
    run: dict[str, Any], github: GitHub, tmp_path: Path
) -> None:
    posted(run, tmp_path, b"a\xff\x00b\n" + b"\n" * 10_000 + b"-" * 20_000 + b"x\nline\n" * 1_000_000)
    [comment] = github.comments
    assert "\na\ufffdb\n" in comment["body"]
    assert len(comment["body"].encode()) <= LONGEST_BYTES
    assert "[the run](https://github.com/owner/project/actions/runs/5)" in comment["body"][-120:]


def test_the_entry_point_runs_where_nothing_is_installed_and_fails_in_a_line(
    run: dict[str, Any], github: GitHub, tmp_path: Path
) -> None:
    """Python without site-packages, as on a machine that has not been set up."""
    (tmp_path / "event.json").write_text(json.dumps(run))
    (tmp_path / "report.md").write_text("## Results\n")

    def ended() -> subprocess.CompletedProcess[str]:
        program = ["-S", "-m", "tools.pull_request.comment", "--report", f"{tmp_path}/report.md", "--topic", "pull request"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run([sys.executable, *program], cwd=ROOT, env=environment, capture_output=True, text=True)

    good = ended()
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("[INFO] https://")
    github.faults = [(403, f'{{"message": "no {TOKEN}"}}')]
    bad = ended()
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr == "error: GitHub, GET pulls: 403 no ***\n"


@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "GITHUB_API_URL", "GITHUB_EVENT_PATH"])
def test_outside_of_a_workflow_it_is_told_what_is_missing(
    run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "")
    with pytest.raises(InputError, match=f"{name}: is not set"):
        posted(run, tmp_path)
