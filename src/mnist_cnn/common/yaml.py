"""YAML as DVC reads it.

YAML 1.1, which PyYAML reads, takes ``010`` for eight, ``1:30`` for ninety and ``no`` for false; in YAML 1.2 they are
ten and two texts. What DVC records must be what a stage computes with, so there is one reader: DVC's own, ruamel.yaml.

That has two parsers, in C and in Python. DVC reads by the first where it is installed, and changes settings by the
other. They differ in rare things, such as ``%YAML 1.1`` on top, so that only what both read alike is accepted.
"""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mnist_cnn.common.errors import InputError

# What this process has read: a file may be another one for a moment.
READ: list[tuple[Path, Any]] = []


def read_yaml(path: Path) -> Any:  # noqa: ANN401
    """What a YAML file holds.

    Raises:
        InputError: it cannot be read, is not valid YAML, has a key twice, or DVC's parsers read it differently.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    # First the parser in Python: where brackets are nested ten thousand times, that in C ends the process.
    content = parse_yaml(text, path, pure=True)
    # As texts, because not-a-number equals nothing.
    if repr(parse_yaml(text, path)) != repr(content):
        raise InputError(
            f"{path}: DVC's two YAML parsers read it differently: a directive, or a rare sign for a space or a line"
        )
    READ.append((path, content))
    return content


def parse_yaml(text: str, where: str | Path, *, pure: bool = False) -> Any:  # noqa: ANN401
    """What a YAML text holds, by the parser in C if that is installed.

    Args:
        where: it comes from, for messages.
        pure: by the parser in Python.

    Raises:
        InputError: it is not valid YAML, or has a key twice.
    """
    try:
        return YAML(typ="safe", pure=pure).load(text)
    # An impossible date is a ValueError; what does not fit its tag, and a list as a key, are others.
    except (YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        problem = getattr(error, "problem", None) or error
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise InputError(f"{where}: {line}not valid YAML: {' '.join(str(problem).split())}") from None
