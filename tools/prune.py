"""Remove what stages have left that are gone, such as those of a model that is no longer in ``params.yaml``."""

import shutil
from pathlib import Path

from mnist_cnn.common import cli
from mnist_cnn.common.files import write_text
from tools.lock import blocks
from tools.pipeline import Pipelines, leftovers, pipelines, without_stage


def main(root: Path) -> None:
    """Remove what stages have made that are gone, and their entries in lock files; name each.

    What no stage has made is left.

    Args:
        root: the repository.
    """
    prune(pipelines(root))


def prune(found: Pipelines) -> None:
    """See ``main``."""
    for path in leftovers(found):
        print(f"removed {path}, which no stage makes any more")
        if (found.root / path).is_dir():
            shutil.rmtree(found.root / path)
        else:
            (found.root / path).unlink()
    for lock, names in without_stage(found).items():
        head, texts = blocks((found.root / lock).read_text(encoding="utf-8"))
        write_text(found.root / lock, head + "".join(text for name, text in texts.items() if name not in names))
        print(f"removed from {lock}: {', '.join(names)}")


if __name__ == "__main__":
    cli.run(main)
