"""Generated text on pages: ``<!-- metrics/x.md -->``, what that file holds, ``<!-- end of metrics/x.md -->``."""

import re
from pathlib import Path

from mnist_cnn.common.errors import InputError

_BLOCK = re.compile(r"(?P<start><!-- (?P<file>\S+\.md) -->\n).*?(?P<end><!-- end of (?P=file) -->)", re.DOTALL)


def pages(root: Path) -> list[Path]:
    """The project's pages that may have generated text: README.md and those in docs/."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def filled(page: Path, root: Path) -> str:
    """The text of a page with each block as its file below ``root`` has it now.

    Raises:
        InputError: the page or a file cannot be read.
    """

    def block(found: re.Match[str]) -> str:
        return found["start"] + _text(root / found["file"]) + found["end"]

    return _BLOCK.sub(block, _text(page))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
