"""Generated tables on a page: ``<!-- metrics/x.md -->``, what that file holds, ``<!-- end of metrics/x.md -->``."""

import re
from pathlib import Path

from mnist_cnn.common.errors import InputError

_BLOCK = re.compile(r"(?P<start><!-- (?P<file>\S+\.md) -->\n).*?(?P<end><!-- end of (?P=file) -->)", re.DOTALL)


def with_tables(page: str, folder: Path) -> str:
    """The page with each block as its file in ``folder`` has it now.

    Raises:
        InputError: a file cannot be read, or the page has no block.
    """

    def filled(block: re.Match[str]) -> str:
        try:
            return block["start"] + (folder / block["file"]).read_text(encoding="utf-8") + block["end"]
        except OSError as error:
            raise InputError(f"{folder / block['file']}: cannot be read ({error.strerror})") from None

    text, blocks = _BLOCK.subn(filled, page)
    if not blocks:
        raise InputError("the page has no '<!-- file.md -->' … '<!-- end of file.md -->' to put a table in")
    return text
