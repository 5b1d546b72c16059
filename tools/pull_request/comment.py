"""From a report to the comment that .github/scripts/comment.js posts. Needs nothing that is installed.

The report is of others' making: it is read as text and nothing else.
"""

import os
from pathlib import Path

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from tools.pull_request.text import LONGEST_BYTES, fitting, harmless, size
from tools.pull_request.topic import check

# Of the file; what GitHub takes is a good deal less.
_MOST_BYTES = 1_000_000


def main(report: Path, topic: str, out: Path) -> None:
    """Write the report as a comment: made harmless, cut to what GitHub takes, under the marker of its topic.

    The environment's RUN_URL is the page of the run that has made the report.

    Args:
        report: the report, Markdown.
        topic: what the comment is about; one is kept for each.
        out: written: the comment.
    """
    check(topic)
    run = os.environ.get("RUN_URL")
    if not run:
        raise InputError("RUN_URL: is not set; the workflows set it to the address of the run that made the report")
    marker = f"<!-- mnist-cnn: {topic} -->\n"
    head = f"<sub>Written by the code that it reports on, in [this run]({run}). Replaced when there is news.</sub>\n\n"
    cut = f"**Cut here: too long for a comment. The whole report is on the page of [the run]({run}).**\n"
    text = fitting(head + harmless(_read(report)), cut, LONGEST_BYTES - size(marker))
    out.write_text(marker + text, encoding="utf-8", newline="\n")


def _read(report: Path) -> str:
    # A link in what was handed over could lead to any file here.
    if report.is_symlink() or not report.is_file():
        raise InputError(f"{report}: is no file")
    with report.open("rb") as file:
        text = file.read(_MOST_BYTES).decode("utf-8", errors="replace")
    if not text.strip():
        raise InputError(f"{report}: is empty")
    return text


if __name__ == "__main__":
    cli.run(main)
