"""The comparison table, put into the README."""

import re
from pathlib import Path

from mnist_cnn.errors import InputError
from mnist_cnn.files import write_text
from stages import cli

_BLOCK = re.compile(r"(?<=<!-- comparison -->\n).*(?=<!-- end of comparison -->)", re.DOTALL)


def main(table: Path, readme: Path) -> None:
    """Put the comparison table between its two marks in the README, in place of the one there."""
    text = readme.read_text(encoding="utf-8")
    if not _BLOCK.search(text):
        raise InputError(f"{readme}: has no '<!-- comparison -->' … '<!-- end of comparison -->'")
    write_text(readme, _BLOCK.sub(lambda _: table.read_text(encoding="utf-8"), text))


if __name__ == "__main__":
    cli.run(main)
