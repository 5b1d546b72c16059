"""Generated tables, put into the README."""

from pathlib import Path

from mnist_cnn.files import write_text
from mnist_cnn.readme import with_tables
from stages import cli


def main(readme: Path) -> None:
    """Put each table between the two marks that name its file, in place of the one there."""
    write_text(readme, with_tables(readme.read_text(encoding="utf-8"), readme.parent))


if __name__ == "__main__":
    cli.run(main)
