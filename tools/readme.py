"""Generated tables, put into the README."""

from pathlib import Path

from mnist_cnn.common import cli
from mnist_cnn.common.files import write_text
from tools.pages import with_tables


def main(readme: Path) -> None:
    """Put each table between the two marks that name its file, in place of the one there."""
    write_text(readme, with_tables(readme.read_text(encoding="utf-8"), readme.parent))


if __name__ == "__main__":
    cli.run(main)
