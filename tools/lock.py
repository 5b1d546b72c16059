"""DVC's lock files: what stages were made of, and what they made."""

import re
from pathlib import Path
from typing import Any

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.yaml import parse_yaml


def stages_of(lock: str, where: str | Path) -> dict[str, dict[str, Any]]:
    """The stages in a lock file's text, by name. Raises InputError where it is damaged; ``where``: of messages."""
    content = parse_yaml(lock, where)
    stages = content.get("stages") if isinstance(content, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise InputError(f"{where}: holds no stages; 'git restore' brings back the last commit's")
    return stages


def blocks(lock: str) -> tuple[str, dict[str, str]]:
    """The head of a lock file's text, and the text of each stage by its name, in their order."""
    head, *texts = re.split(r"^(?=  \S)", lock, flags=re.MULTILINE)
    return head, {text.split(":")[0].strip(): text for text in texts}


def in_order(lock: str, names: list[str]) -> str:
    """A lock file's text with its stages in the order of ``names``, as if they had run one after the other.

    DVC adds each stage behind those that ended before it; the stages' text is not touched.
    """
    head, by_name = blocks(lock)
    order = [name for name in names if name in by_name]
    return head + "".join(by_name.pop(name) for name in order) + "".join(by_name.values())
