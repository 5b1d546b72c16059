"""What is written has Unix line ends on every system: results have the same bytes everywhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

FOLDERS = ("src", "stages", "tools", "benchmark")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
# What leaves line ends to the system unless it is told of them, and the option that tells.
OPTIONS = {"write_text": "newline", "to_csv": "lineterminator"}
MODES = ("w", "a", "x", "wt", "at", "xt")


def left_to_the_system(program: str) -> Iterator[str]:
    """The calls of methods that write text with whatever line ends the system has."""
    for call in (node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", None) or f"{getattr(call.func, 'id', '')}()"
        opens = name in ("open", "open()") and any(isinstance(a, ast.Constant) and a.value in MODES for a in call.args)
        option = "newline" if opens else OPTIONS.get(name)
        if option and option not in {given.arg for given in call.keywords}:
            yield ast.unparse(call)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_line_ends_are_not_left_to_the_system(source: Path) -> None:
    found = list(left_to_the_system(source.read_text(encoding="utf-8")))
    assert [call for call in found if call != "open(os.devnull, 'w')"] == []


@pytest.mark.parametrize("call", ["a.write_text(b)", "a.to_csv(index=False)", "open(a, 'w')", "a.open('a')"])
def test_a_call_that_leaves_them_is_found(call: str) -> None:
    assert list(left_to_the_system(call)) == [call]
