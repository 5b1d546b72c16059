"""Refuse what cannot work, before any other stage runs."""

import os
from pathlib import Path

from mnist_cnn.common.errors import InputError, about
from mnist_cnn.common.files import write_text
from mnist_cnn.engine.feasible import check_feasible
from mnist_cnn.settings.libraries import COMPUTING, DRAWING, check_installed, pins
from mnist_cnn.settings.params import load
from stages import run


def main(params: Path, requirements: Path, checked: Path, computing: Path, drawing: Path) -> None:
    """Check params.yaml as a whole, and whether this machine can do it; note the libraries that results follow from.

    Every stage comes after this one, so what is refused here costs nothing.
    """
    try:
        settings = load(params)
        with about(str(params)):
            check_feasible(settings)
    except InputError as error:
        raise InputError(f"{error}{_way_back(params)}") from None
    # The same whatever the settings: that they have changed concerns the stages that read them, and no other.
    write_text(checked, "All settings are known and within their bounds.\n")
    # These change with a version alone, not with the rest of the file.
    for file, packages in ((computing, COMPUTING), (drawing, DRAWING)):
        write_text(file, pins(requirements, packages))
        check_installed(file)


def _way_back(params: Path) -> str:
    """What to do about settings that 'dvc exp run -S' has written into the file of the user's own folder."""
    in_its_own_folder = ".dvc" in Path.cwd().parts  # --temp and --queue
    if "DVC_EXP_NAME" not in os.environ or in_its_own_folder:
        return ""
    return f"\n{params} keeps what 'dvc exp run' wrote; 'git restore {params}' takes it back to the last commit"


if __name__ == "__main__":
    run(main)
