"""Markdown as GitHub reads it."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """A table, without a line end behind it.

    Args:
        header, rows: cells of Markdown in one line each; a ``|`` in them stays a ``|``.
        align: a letter a column, ``l`` or ``r``; left where there is none.
    """
    rules = ["---:" if letter == "r" else "---" for letter in align.ljust(len(header), "l")]
    return "\n".join(f"| {' | '.join(map(_cell, cells))} |" for cells in [header, rules, *rows])


def _cell(content: str) -> str:
    """Content with a backslash before each '|', code spans included, where GitHub takes that one away again."""
    return content.replace("|", "\\|")
