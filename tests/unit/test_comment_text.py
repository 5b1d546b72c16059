"""What others wrote, made fit for a comment: nobody called by name, nothing hidden, cut to what GitHub takes."""

import html
import os
import re
import subprocess
import sys
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mnist_cnn.common.errors import InputError
from tests.helpers import ROOT
from tools.pull_request import comment
from tools.pull_request.text import LONGEST_BYTES, fitting, harmless

RUN = "https://github.com/owner/project/actions/runs/5"
MARKER = "<!-- mnist-cnn: pull request -->\n"
JOINER = "\u2060"


PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def rendered(markdown: str, environment: dict[str, Any] | None = None) -> str:
    return str(PARSER.render(markdown, {} if environment is None else environment))


# Harmless


# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt, version 16), and a blank Braille pattern.
IGNORABLE = (
    "\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)


def hidden(text: str) -> list[str]:
    """What nobody sees of a text, but for line ends, tabs, the sign that ends a name, and one that colours another."""
    categories = {"Cc", "Cf", "Zl", "Zp"}
    text = re.sub("(.)\ufe0f", lambda found: found[unicodedata.category(found[1]) == "So"], text)
    text = re.sub(f"[\n\t{JOINER}]", "", text)
    return [sign for sign in text if unicodedata.category(sign) in categories or re.match(f"[{IGNORABLE}]", sign)]


class Html(HTMLParser):
    """The tags of a text, and what a browser takes for no text besides."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[object] = []
        self.hidden: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *attrs))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((tag,))

    def handle_comment(self, data: str) -> None:
        self.hidden.append(data)

    def handle_decl(self, decl: str) -> None:
        self.hidden.append(decl)

    def handle_pi(self, data: str) -> None:
        self.hidden.append(data)

    def unknown_decl(self, data: str) -> None:
        self.hidden.append(data)


def mentioned(page: str) -> list[str]:
    """Whom GitHub would call: it looks at each stretch of text between tags, with ASCII's idea of a word.

    It takes no other sign for an '@' than that; something that makes one of it may come some day.
    """
    texts = re.split(r"<[^>]*>", re.sub(r"(?s)<(code|pre)\b.*?</\1>", " ", page))
    return [
        name
        for text in texts
        for name in re.findall(
            r"(?<![A-Za-z0-9_])@([A-Za-z0-9][\w/-]*)", re.sub("[\ufe6b\uff20]", "@", html.unescape(text))
        )
    ]


def behind(markdown: str) -> list[str]:
    """What Markdown keeps from a reader: titles, targets without a text, texts of pictures, words behind a fence."""
    found: list[str] = []
    for block in PARSER.parse(markdown):
        found += [block.info] if block.type == "fence" and block.info.strip() not in ("", "bash") else []
        texts: list[str] = []
        for token in block.children or []:
            if token.type in ("link_open", "image"):
                found += [str(token.attrs["title"])] if "title" in token.attrs else []
            if token.type == "link_open":
                texts.append("")
            elif token.type == "link_close":
                found += [] if html.unescape(texts.pop()).strip() else [block.content]
            elif token.type == "image":
                found += [] if re.fullmatch(r"\w+", token.content) else [token.content]
            elif texts and token.type != "html_inline":
                texts[-1] += token.content
    return found


def noted(page: str) -> list[str]:
    """What GitHub would leave a note at: issues, pull requests, discussions and commits, by number or address."""
    page = re.sub(r"(?s)<(code|pre)\b.*?</\1>", " ", page)
    texts = [*re.split(r"<[^>]*>", page), *re.findall(r'href="([^"]*)"', page)]
    sign = r"#\d|(?i:\bgh-\d|/(?:issues|pull|discussions|commit)/)"
    return [text for text in texts if re.search(sign, html.unescape(text), re.ASCII)]


# Pieces that mean something to Markdown or HTML, in any order.
PIECES = st.sampled_from(
    "@owner @ owner é 名 a 1 _ * ** ~~ ` ``` | \\ < > <b> </b> <div> </div> <br> <!-- --> -- ! <! <? ?> ; & &amp; "
    "&copy &#64; &#64 &#0064; &#x40; &#X40 &commat; &#6 4; &#8203; &#x200b &shy; &ZeroWidthSpace; &#10; train@ "
    "evaluate@ ＠ ﹫ &#65312; &#xFE6B; [x]: [^1]: ]: /url <x y='z'> <a href=x> </p> </_ <br/> <details> <details x> "
    "a@owner.org ⚠ \u2800 \u17b4 \U0001d173 \ufe00 "
    "\u200b \u2060 \u202e \u2028 \u00ad \ufe0f \U000e0041 \U000e0100 \u3164 \x00 \x1b \r \n".split(" ")
    + [" ", "\n\n"]
)
MARKDOWN = st.lists(PIECES, max_size=14).map("".join)
ADDRESS = "https://github.com/owner/name/"
# The same for links, fences, and what becomes a link without any sign of one.
LINKS = st.sampled_from(
    "[ ![ ] ]( ) ( [a](u 'b' <u> (b) u \\ | - > 1. a 1 _ ** ~~ ~~~ ``` ` bash js /pull /commit / # o/n# GH- gh - & ; "
    "&#35; &#49; &#x31 &num; &sol; &#45; &#72; &quot; &nbsp; &copy &#233; &#1 &#1; <br> <details> é ]: :".split(" ")
    + [" ", "\n", "\n\n", '"t"', ADDRESS, "| a |\n| - |\n| "]
)


@given(st.one_of(MARKDOWN, st.lists(LINKS, max_size=14).map("".join), st.text()))
@example("_@owner_")
@example("é@owner, 名@owner, 1@owner")
@example("<div>&#64owner &copy@owner</div>")
@example("&#6<!-- -->4;owner")
@example("&#6&#8203;4;owner")
@example("<!<!-- -->-- x -->")
@example("[//]: # (owner)")
@example("<secret owner>")
@example("⚠\ufe0f\ufe0f")
@example("[](u) [**<br>**](u) [_&nbsp;_](u) ![](u) ![some words](u) ![[a](b)](c)")
@example("[a](u 't') [a](u\n(t)) [a](u(x) \"t\") [a](u\\) 't') [a](<u> 't') ![a](u 't') [[a\\]](u 't')")
@example("| a |\n|---|\n| [a](u\\) 't') |")
@example("~~~ js `t`\n~~~\n1. > - ```` bash t\n")
@example(f"o/n\\#1 &#1 \\&#233; &amp;#1; #&#49; o/n&num;1 _GH-1_ gh\\-1 G&#72;-1 &fjlig; {ADDRESS}issues/1")
@example(f"[a]({ADDRESS}issues\\/1) [a]({ADDRESS}issue&#115;/1) [a]({ADDRESS}commit&#x2f;a) {ADDRESS}pull&sol;1")
def test_nobody_is_called_by_name_and_nothing_is_hidden(text: str) -> None:
    told = harmless(text)
    # As Markdown, and as what is between tags that begin a line, which Markdown leaves to HTML.
    assert mentioned(rendered(told)) == mentioned(told) == []
    assert noted(rendered(told)) == noted(html.unescape(told)) == behind(told) == []
    assert hidden(told) == hidden(html.unescape(told)) == []
    definitions: dict[str, Any] = {}
    rendered(told, definitions)
    assert not definitions.get("references") and not re.search(r"\[\^\w+\]:", told)
    found = Html(told)
    assert found.hidden == [] and set(found.tags) <= {("details",), ("summary",), ("br",)}
    assert harmless(told) == told


def test_signs_for_a_mention_stay_what_they_are_to_a_reader() -> None:
    assert harmless("ask @owner/team, _@a-b_ or é@c") == "ask @\u2060owner/team, _@\u2060a-b_ or é@\u2060c"
    for sign in ("@", "&#64;", "&#64", f"&#{'0' * 5000}64;", "&#x40;", "&#X40;", "&commat;"):
        assert harmless(f"ask {sign}owner").replace("#\u2060", "#") == f"ask {sign}\u2060owner"
    # To be copied.
    assert harmless("`train@model_1`, dvc repro evaluate@a") == "`train@model_1`, dvc repro evaluate@a"
    # Part of another word, they may be what GitHub cuts off.
    assert harmless("1train@owner /train@owner") == "1train@\u2060owner /train@\u2060owner"


def test_what_is_seen_stays() -> None:
    assert harmless(f"&#{'9' * 5000};") == f"&#\u2060{'9' * 5000};"
    seen = "✅ ⚠️ é 名 → 99.4 % &lt;br&gt; &eacute; a < b <br>\n\n| a |\t[x](y): |\n<details>\n<summary>s</summary>\n"
    assert harmless(seen) == seen
    link, picture = f"[this run]({ADDRESS}actions/runs/5)", f"![a_1]({ADDRESS}blob/0a1/plots/a%20_1.png?raw=true)"
    own = (
        f"R&D {link}\n\n| {picture} | ``` a``b ``` |\n\n``` a``b ``` ~~c~~\n\n```bash\ngit fetch\n```\n\n~~~\nx\n~~~\n"
    )
    assert harmless(own) == own
    for shown in ("<b>x</b>", "a `<x>`", "[x]: y (z)", "[^x]: y", "[](u)", "[x](u 't')", "![a b](u 't')", "~~~js t"):
        text = re.sub("<[^>]*>", "", rendered(harmless(shown)))
        assert html.unescape(text).replace(JOINER, "").strip() == shown.replace("`", "")
    assert harmless("a\x00b\x1b[31mc\u202e\u2028d\r\n\te\x85é\u200b\u00ad\U000e0041\U000e0100f") == "ab[31mcd\n\teéf"
    assert harmless("a<!-- x\n\ny -->b<!-->c") == "ab"
    assert harmless("&#8203;&shy;") == "&amp;#\u20608203;&amp;shy;"


# Cutting


@st.composite
def report(draw: st.DrawFn) -> str:
    """A report with tables, folds and fences, one in the other."""
    line = st.text("abé✅ ", min_size=1, max_size=12).map(lambda text: f"x{text}".strip())

    def block(depth: int) -> list[str]:
        kind = draw(st.sampled_from(["text", "table", "code", "fold"]))
        if kind == "table":
            return ["| head | b |", "| --- | --: |", *(f"| {text} | 1 |" for text in draw(st.lists(line, min_size=1)))]
        if kind == "code":
            fence = draw(st.sampled_from(["```", "````", "~~~"]))
            return [
                f"{fence}bash",
                *draw(st.lists(st.one_of(line, st.just("<details>")))),
                *["```"] * (fence == "````"),
                fence,
            ]
        if kind == "fold" and depth < 2:
            return ["<details>", "<summary>More</summary>", "", *blocks(depth + 1), "</details>"]
        return draw(st.lists(line, min_size=1, max_size=3))

    def blocks(depth: int) -> list[str]:
        count = draw(st.integers(1, 4))
        return [text for _ in range(count) for text in [*block(depth), ""]]

    return "\n".join(["## Title", "", *blocks(0)])


@given(report(), st.integers(60, 500))
def test_a_cut_report_is_whole_markdown_and_as_long_as_fits(text: str, longest: int) -> None:
    """Nothing is left open, no table without a line under its header, and whole lines alone."""
    told, cut = fitting(text, "**cut**\n", longest), "**cut**\n"
    if len(text.encode()) <= longest:
        assert told == text
        return
    assert len(told.encode()) <= longest
    assert told.endswith(cut)
    page = rendered(told)
    assert page.endswith("<p><strong>cut</strong></p>\n")
    assert page.count("<details>") == page.count("</details>")
    assert "| head |" not in page
    assert set(told.removesuffix(cut).splitlines()) <= {*text.splitlines(), "", "</details>"}
    # With more room, as much at least.
    assert fitting(text, cut, longest + 40).startswith(os.path.commonprefix([text, told]))


def test_characters_of_several_bytes_count_as_what_they_are() -> None:
    assert fitting("x" * 100 + "\n", "cut", 50) == "cut"
    assert fitting("é\n" * 20, "cut", 30) == "é\n" * 8 + "\ncut"


# The entry point


@pytest.fixture(autouse=True)
def run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_URL", RUN)


def written(folder: Path, text: bytes, topic: str = "pull request") -> str:
    (folder / "report.md").write_bytes(text)
    comment.main(folder / "report.md", topic, folder / "comment.md")
    return (folder / "comment.md").read_bytes().decode()


def test_a_comment_is_a_marker_where_it_comes_from_and_the_harmless_report(tmp_path: Path) -> None:
    marker, source, empty, rest = written(tmp_path, "## Results\r\n\r\n@owner ✅\r\n".encode()).split("\n", 3)
    assert marker + "\n" == MARKER
    assert f"[this run]({RUN})" in source
    assert (empty, rest) == ("", "## Results\n\n@\u2060owner ✅\n")
    assert written(tmp_path, b"x", "experiment run-1").startswith("<!-- mnist-cnn: experiment run-1 -->\n")


def test_what_is_no_text_or_too_long_is_posted_as_far_as_it_goes(tmp_path: Path) -> None:
    told = written(tmp_path, b"a\xff\x00b\n" + b"\n" * 10_000 + b"-" * 20_000 + b"x\nline\n" * 1_000_000)
    assert told.startswith(MARKER)
    assert "\na\ufffdb\n" in told
    assert LONGEST_BYTES - 50 < len(told.encode()) <= LONGEST_BYTES
    assert f"line\n\n**Cut here: too long for a comment. The whole report is on the page of [the run]({RUN}).**" in told


@pytest.mark.parametrize("topic", ["", "a --> b", "a--b", "-a", "a-", "a\nb", "<a>"])
def test_a_topic_that_would_leave_its_marker_is_refused(tmp_path: Path, topic: str) -> None:
    with pytest.raises(InputError, match="topic: "):
        written(tmp_path, b"x", topic)


def test_a_report_that_is_a_link_or_missing_or_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link.md").symlink_to(tmp_path / "secret")
    (tmp_path / "empty.md").write_text(" \n")
    for name, fault in (("link.md", "is no file"), ("missing.md", "is no file"), ("empty.md", "is empty")):
        with pytest.raises(InputError, match=fault):
            comment.main(tmp_path / name, "pull request", tmp_path / "comment.md")
    assert not (tmp_path / "comment.md").exists()


def test_it_runs_where_nothing_is_installed_and_fails_in_a_line(tmp_path: Path) -> None:
    """Python without site-packages, as on a machine that has not been set up."""
    (tmp_path / "report.md").write_text("## Results\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def ended(run: str) -> subprocess.CompletedProcess[str]:
        options = ["--report", f"{tmp_path}/report.md", "--topic", "pull request", "--out", f"{tmp_path}/comment.md"]
        program = [sys.executable, "-S", "-m", "tools.pull_request.comment", *options]
        return subprocess.run(program, cwd=ROOT, env=environment | {"RUN_URL": run}, capture_output=True, text=True)

    good = ended(RUN)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    assert (tmp_path / "comment.md").read_text().startswith(MARKER)
    bad = ended("")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith("error: RUN_URL: is not set")
