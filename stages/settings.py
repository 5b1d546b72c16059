"""Refuse what cannot work, before any other stage runs."""

import os
import subprocess
import time
from pathlib import Path

from mnist_cnn.common.errors import InputError, about
from mnist_cnn.common.files import write_text
from mnist_cnn.common.libraries import COMPUTING, DRAWING, EXPORTING, check_installed, pins
from mnist_cnn.engine.feasible import check_feasible
from mnist_cnn.settings.params import Params, load
from mnist_cnn.settings.story import load_story
from stages import inputs, run

_RECENT_S = 60
_UNKNOWN_TO_GIT = "\nan experiment of --temp or --queue has the files that Git knows: a new one needs 'git add' first"


def main(
    params: Path, story: Path, requirements: Path, checked: Path, computing: Path, drawing: Path, exporting: Path
) -> None:
    """Check params.yaml and story.yaml, and whether this machine can do it; note which libraries results follow from.

    Every stage comes after this one, so what is refused here costs nothing.

    Args:
        params: the settings, params.yaml.
        story: what each model is for, story.yaml.
        requirements: the pinned versions of packages.
        checked: written: a line, always the same.
        computing: written: the versions that measurements follow from.
        drawing: written: those that tables and figures follow from beside.
        exporting: written: those that exported files follow from beside.
    """
    # An experiment of the user's own folder; those of --temp and --queue have one of their own.
    is_experiment = "DVC_EXP_NAME" in os.environ
    in_users_folder = is_experiment and ".dvc" not in Path.cwd().parts
    if in_users_folder:
        _show_git_what_dvc_wrote()
    try:
        settings = load(params)
        load_story(story, settings.data)
        with about(str(params)):
            check_feasible(settings)
            _check_engine(settings)
    except InputError as error:
        hint = _way_back(params) if in_users_folder else _UNKNOWN_TO_GIT if is_experiment else ""
        raise InputError(f"{error}{hint}") from None
    # The same whatever the settings: that they have changed concerns the stages that read them, and no other.
    write_text(checked, "All settings are known and within their bounds.\n")
    # These change with a version alone, not with the rest of the file.
    for file, packages in ((computing, COMPUTING), (drawing, DRAWING), (exporting, EXPORTING)):
        check_installed(requirements, packages)
        write_text(file, pins(requirements, packages))


def _check_engine(settings: Params) -> None:
    """Raises InputError where the kernels are asked for by name, and cannot compute a network here."""
    if settings.train.engine != "native":
        return
    # Only now: it takes time to load.
    from mnist_cnn.engine.device import resolve_device
    from mnist_cnn.engine.execution import ExecutionConfig, choose_engine
    from mnist_cnn.models import build

    for name, recipe in settings.models.items():
        with about(f"models.{name}"):
            choose_engine(build(name, recipe.dropout), ExecutionConfig(resolve_device(settings.train.device), "native"))


def _show_git_what_dvc_wrote() -> None:
    """Give the files in Git that DVC has just written a time one second later.

    DVC begins an experiment by putting all files back to the last commit, which Git's index takes note of, and then
    writes the changed ones. Git knows a changed file by its size and by the second: where an experiment fails, it
    would take those of equal size for unchanged, in 'git status' as in 'git restore' and 'git commit --all'.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], stdout=subprocess.PIPE).stdout
    for name in filter(None, listed.split(b"\0")):
        if os.path.lexists(name):
            found = os.lstat(name)
            if found.st_mtime > time.time() - _RECENT_S:
                os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9), follow_symlinks=False)
    if followed := inputs():
        followed.written_by_the_stage()


def _way_back(params: Path) -> str:
    """What to do about settings that 'dvc exp run -S' has written into the file; the user's own may be there, too."""
    return (
        f"\n{params} keeps what 'dvc exp run' wrote: run it again with what is allowed, or go back to the last commit "
        f"by 'git stash push {params}', which throws nothing away"
    )


if __name__ == "__main__":
    run(main)
