"""What DVC knows of this folder's pipelines: stages, what they make, and where its cache is."""

from pathlib import Path
from typing import Any, NamedTuple

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import PipelineStage

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.inputs import ignored_by_dvc
from tools.lock import stages_of


class Pipelines(NamedTuple):
    """The pipelines of a folder; paths are relative to it.

    Attributes:
        stages: names by the pipeline's lock file.
        locked: what the lock files have, as they were when this was made: stages by name.
        outs: all that stages make, files and folders.
        deps: all that stages read.
        added: what ``dvc add`` keeps in DVC's cache; no stage makes it.
        cache: where DVC keeps objects, by their hash.
    """

    root: Path
    stages: dict[Path, list[str]]
    locked: dict[Path, dict[str, dict[str, Any]]]
    outs: set[Path]
    deps: set[Path]
    added: set[Path]
    cache: Path


def pipelines(root: Path) -> Pipelines:
    """The pipelines below ``root``. Raises InputError where DVC refuses them, or a lock file is damaged."""
    try:
        with Repo(str(root)) as repo:
            root = Path(repo.root_dir)
            named = [stage for stage in repo.index.stages if isinstance(stage, PipelineStage)]
            others = [stage for stage in repo.index.stages if not isinstance(stage, PipelineStage)]
            stages: dict[Path, list[str]] = {}
            for stage in named:
                file = Path(stage.path).with_suffix(".lock").relative_to(root)
                stages.setdefault(file, []).append(stage.name)
            outs, deps, added = (
                {path.relative_to(root) for item in items if (path := Path(item.fs_path)).is_relative_to(root)}
                for items in (
                    [out for stage in named for out in stage.outs],
                    [dep for stage in named for dep in stage.deps],
                    [out for stage in others for out in stage.outs],
                )
            )
            locked = {lock: _locked(root, lock) for lock in stages}
            return Pipelines(root, stages, locked, outs, deps, added, Path(repo.cache.local.path))
    except (DvcException, ValueError) as error:
        raise InputError(f"{root}: DVC cannot read its pipelines ({' '.join(str(error).split())})") from None


def _locked(root: Path, lock: Path) -> dict[str, dict[str, Any]]:
    """The stages in a lock file, by name; none where there is no file. Raises InputError where it is damaged."""
    if not (root / lock).exists():
        return {}
    try:
        return stages_of((root / lock).read_text(encoding="utf-8"), lock)
    except UnicodeDecodeError as error:
        raise InputError(f"{lock}: cannot be read ({error})") from None


def without_stage(found: Pipelines) -> dict[Path, list[str]]:
    """The entries of lock files whose stages are gone, such as those of a removed model."""
    gone = {lock: [name for name in stages if name not in found.stages[lock]] for lock, stages in found.locked.items()}
    return {lock: names for lock, names in gone.items() if names}


def leftovers(found: Pipelines) -> list[Path]:
    """Files and folders that a stage has made which is gone."""
    of_gone = {
        Path(out["path"])
        for lock, names in without_stage(found).items()
        for name in names
        for out in found.locked[lock][name].get("outs", [])
    }
    return sorted(path for path in of_gone if (found.root / path).exists() and not _is_made(found, path))


def strays(found: Pipelines) -> list[Path]:
    """Files that no stage has made, in a folder of which another stage reads all; without what DVC does not count."""
    shared = {dep for dep in found.deps if any(dep in out.parents for out in found.outs)}
    beside = {
        file.relative_to(found.root) for dep in shared for file in (found.root / dep).rglob("*") if file.is_file()
    }
    ignored = ignored_by_dvc(found.root)
    gone = leftovers(found)
    return sorted(
        path
        for path in beside
        if not _is_made(found, path)
        and path not in gone
        and path.name != ".gitignore"
        and not ignored.match_file(path.as_posix())
    )


def _is_made(found: Pipelines, path: Path) -> bool:
    """Whether a stage that there is makes it, something in it, or a folder that it is in."""
    return any(out == path or path in out.parents or out in path.parents for out in found.outs)
