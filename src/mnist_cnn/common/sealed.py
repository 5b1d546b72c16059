"""JSON that carries a digest of its own content: what was damaged, or changed by hand, is noticed when it is read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import write_text

_DIGEST = "sha256"


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content``, which JSON can hold, a line an entry, and its digest as the last one."""
    entries = {**content, _DIGEST: _digest(content)}
    lines = (f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in entries.items())
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_sealed(path: Path, restored_by: str) -> dict[str, Any]:
    """What ``write_sealed`` wrote.

    Args:
        restored_by: the command that makes the file again, for the message.

    Raises:
        InputError: the file is missing or damaged, or its content is not what its digest is of.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"holds {type(content).__name__}, not a mapping")
        if content.pop(_DIGEST, None) != _digest(content):
            raise ValueError("its content is not what its digest is of")
    except (OSError, ValueError, RecursionError) as error:
        fault = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({fault}); {restored_by} restores it") from None
    return content


def _digest(content: Mapping[str, Any]) -> str:
    """64 hexadecimal digits; the order of the entries is part of it."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
