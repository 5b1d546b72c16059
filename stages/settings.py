"""Refuse settings that cannot be, before any other stage works."""

import os
from pathlib import Path

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import write_text
from mnist_cnn.settings.params import load


def main(params: Path, checked: Path) -> None:
    """Check params.yaml as a whole. Every stage comes after this one, so what is refused here costs nothing."""
    try:
        load(params)
    except InputError as error:
        raise InputError(f"{error}{_way_back(params)}") from None
    # The same whatever the settings: that they have changed concerns the stages that read them, and no other.
    write_text(checked, "All settings are known and within their bounds.\n")


def _way_back(params: Path) -> str:
    """What to do about settings that 'dvc exp run -S' has written into the file of the user's own folder."""
    in_its_own_folder = ".dvc" in Path.cwd().parts  # --temp and --queue
    if "DVC_EXP_NAME" not in os.environ or in_its_own_folder:
        return ""
    return f"\n{params} keeps what 'dvc exp run' wrote; 'git restore {params}' takes it back to the last commit"


if __name__ == "__main__":
    cli.run(main)
