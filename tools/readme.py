"""Generated text, put into README.md and docs/."""

from pathlib import Path

from mnist_cnn.common import cli
from mnist_cnn.common.files import write_text
from tools.pages import filled, pages


def main(root: Path) -> None:
    """Put what each file in metrics/ holds between the two marks that name it, in place of the text there.

    Args:
        root: the repository.
    """
    for page in pages(root):
        write_text(page, filled(page, root))


if __name__ == "__main__":
    cli.run(main)
