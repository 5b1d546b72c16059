"""Python code without what has no effect: what follows from code should not be made anew for a reworded comment."""

import ast
import io
import tokenize
from functools import cache

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def without_comments(source: str) -> str:
    """Python source without comments, docstrings and blank lines.

    Not as ``ast.unparse`` writes it, which depends on Python's version.
    """
    lines = source.split("\n")
    dropped = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start[0] - 1, token.start[1]
        if token.type == tokenize.COMMENT:
            lines[row] = lines[row][:column].rstrip()
        elif token.type == tokenize.NL and not lines[row].strip():  # inside a string there is none
            dropped.add(row)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            dropped |= _whole_lines(node.body[0], lines)
    return "\n".join(line for row, line in enumerate(lines) if row not in dropped)


def _whole_lines(statement: ast.stmt, lines: list[str]) -> set[int]:
    """The rows of a statement that shares none of its lines with another; else none."""
    first, last = statement.lineno - 1, (statement.end_lineno or statement.lineno) - 1
    around = lines[first].encode()[: statement.col_offset], lines[last].encode()[statement.end_col_offset :]
    return set() if b"".join(around).strip() else set(range(first, last + 1))
