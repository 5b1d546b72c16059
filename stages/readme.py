"""Generated tables, put into the README."""

import re
from pathlib import Path

from mnist_cnn.errors import InputError
from mnist_cnn.files import write_text
from stages import cli


def main(name: str, table: Path, readme: Path) -> None:
    """Put a table between the two marks of its name in the README, in place of the one there."""
    block = re.compile(rf"(?<=<!-- {re.escape(name)} -->\n).*(?=<!-- end of {re.escape(name)} -->)", re.DOTALL)
    text = readme.read_text(encoding="utf-8")
    if not block.search(text):
        raise InputError(f"{readme}: has no '<!-- {name} -->' … '<!-- end of {name} -->'")
    write_text(readme, block.sub(lambda _: table.read_text(encoding="utf-8"), text))


if __name__ == "__main__":
    cli.run(main)
