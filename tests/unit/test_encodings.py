"""Files and other programs' output are read alike under every locale and on every system."""

import ast
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

SOURCES = [path for folder in ("tools", "stages") for path in sorted((ROOT / folder).rglob("*.py"))]


def without_encoding(program: str) -> Iterator[str]:
    """The calls that read or write text in whichever encoding the locale has."""
    for call in (node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call)):
        options = {option.arg for option in call.keywords}
        values = [*call.args, *(option.value for option in call.keywords)]
        modes = [value.value for value in values if isinstance(value, ast.Constant)]
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        name = call.func.id if isinstance(call.func, ast.Name) else method
        binary = any(isinstance(mode, str) and "b" in mode and set(mode) <= set("rwaxb+") for mode in modes)
        opens = method in ("read_text", "write_text") or (name == "open" and not binary)
        if (opens or options & {"text", "universal_newlines"}) and "encoding" not in options:
            yield ast.unparse(call)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_has_an_explicit_encoding(source: Path) -> None:
    assert list(without_encoding(source.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "call", ["open(a)", "a.open('r')", "open(a, mode='w')", "a.read_text()", "a.write_text(b)", "run(a, text=True)"]
)
def test_a_call_without_one_is_found(call: str) -> None:
    assert list(without_encoding(call)) == [call]
    assert list(without_encoding(f"{call[:-1]}, encoding='utf-8')".replace("(, ", "("))) == []
    assert list(without_encoding("open(a, 'rb'); run(a); write_text(a, b)")) == []


def test_a_clone_has_the_committed_bytes_whatever_git_is_told_of_line_ends(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    git("init", "--quiet", "from")
    shutil.copy(ROOT / ".gitattributes", tmp_path / "from")
    (tmp_path / "from/table.csv").write_bytes(b"a,b\n1,2\n")
    git("-C", "from", "add", "--all")
    git("-C", "from", "commit", "--quiet", "--message", "state")
    git("clone", "--quiet", "-c", "core.autocrlf=true", "from", "to")
    assert (tmp_path / "to/table.csv").read_bytes() == b"a,b\n1,2\n"
