"""What DVC knows of this folder's pipelines: stages, what they make, and where its cache is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dvc.exceptions import DvcException
from dvc.repo import Repo

from mnist_cnn.common.errors import InputError
from tools.lock import stages_of


class Pipelines(NamedTuple):
    """The pipelines of a folder; paths are relative to it.

    Attributes:
        stages: names by the pipeline's lock file.
        outs: all that stages make, files and folders.
        deps: all that stages read.
        cache: where DVC keeps objects, by their hash.
    """

    root: Path
    stages: dict[Path, list[str]]
    outs: set[Path]
    deps: set[Path]
    cache: Path


def pipelines(root: Path) -> Pipelines:
    """The pipelines below ``root``. Raises InputError where DVC refuses them."""
    try:
        with Repo(str(root)) as repo:
            root = Path(repo.root_dir)
            stages: dict[Path, list[str]] = {}
            for stage in repo.index.stages:
                file = Path(stage.path).with_suffix(".lock").relative_to(root)
                stages.setdefault(file, []).append(stage.name)
            outs, deps = (
                {Path(item.fs_path).relative_to(root) for item in items} for items in (repo.index.outs, repo.index.deps)
            )
            return Pipelines(root, stages, outs, deps, Path(repo.cache.local.path))
    except (DvcException, ValueError) as error:
        raise InputError(f"{root}: DVC cannot read its pipelines ({' '.join(str(error).split())})") from None


def locked(root: Path, lock: Path) -> dict[str, dict[str, Any]]:
    """The stages in a lock file, by name. Raises InputError where it is damaged."""
    try:
        return stages_of((root / lock).read_text(encoding="utf-8"), lock)
    except UnicodeDecodeError as error:
        raise InputError(f"{lock}: cannot be read ({error})") from None


def without_stage(found: Pipelines) -> dict[Path, list[str]]:
    """The entries of lock files whose stages are gone, such as those of a removed model."""
    return {
        lock: gone
        for lock, names in found.stages.items()
        if (found.root / lock).exists() and (gone := [n for n in locked(found.root, lock) if n not in names])
    }


def leftovers(found: Pipelines) -> list[Path]:
    """Files that a stage made which is gone, or that nobody makes and that lie in a folder of what stages make."""
    of_gone = {
        Path(out["path"])
        for lock, names in without_stage(found).items()
        for name in names
        for out in locked(found.root, lock)[name].get("outs", [])
    }
    shared = {dep for dep in found.deps if any(dep in out.parents for out in found.outs)}
    beside = {file.relative_to(found.root) for dep in shared for file in _files(found.root / dep)}
    made = {path for out in found.outs for path in (out, *out.parents)}

    def is_made(path: Path) -> bool:
        return path in made or any(parent in found.outs for parent in path.parents)

    return sorted(path for path in of_gone | beside if (found.root / path).exists() and not is_made(path))


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and file.name != ".gitignore")
