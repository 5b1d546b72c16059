"""Whether what is in Git fits together: code and settings, dvc.lock, results, pages, remote."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.inputs import ignored_by_dvc
from mnist_cnn.common.sealed import read_sealed
from tools.objects import damaged_objects, md5
from tools.pages import filled, pages
from tools.pipeline import Pipelines, leftovers, pipelines, strays, without_stage


def main(root: Path, cache: str) -> None:
    """Say, in a line each, whether lock files, results, pages' tables, cache and remote are as they should be.

    A study of other code or settings is named as well, but is no fault: it takes an hour and more, and looks at the
    test set, which not every change of a recipe should.

    Changes nothing. Ends with status 1 where one is not. Data that is not here is not missed: a fresh clone can be
    verified, too. Of the cache, ``named`` looks at what lock files name, and ``all`` at all that is there.

    Args:
        root: the repository.
        cache: ``named``: of DVC's cache, what lock files name; ``all``: all that is there.
    """
    if cache not in ("named", "all"):
        raise InputError(f"cache: {cache!r} is not allowed; allowed: named, all")
    if "dvc.lock" not in _lines("git", "ls-files", "dvc.lock"):
        raise InputError("dvc.lock: is not in Git, and what Git has is verified; 'git add .' puts this folder there")
    found = pipelines(root)
    locks = {str(lock): {"stages": stages} for lock, stages in found.locked.items()}
    status = json.loads(_output("dvc", "status", "--json"))
    old, others = stale(status, list(locks.values())), apart(found.stages)
    # DVC names stages with their file, lock files name them without.
    of_others = [name for name in dict.fromkeys(name.rpartition(":")[2] for name in old) if name in others]
    made, fresh = hashes(locks.values()), hashes(locks.values(), of_others)
    enforced = {name: changes for name, changes in status.items() if name.rpartition(":")[2] not in of_others}
    results = [
        *altered(enforced, _output("git", "ls-files", "--deleted", "-z").split("\0")),
        *changed_results(root, fresh),
        *changed_beside_records(root, {path: md5 for path, md5 in made.items() if path not in fresh}),
    ]
    good = [
        _print_check(
            "dvc.lock",
            "made by the code and settings that are here",
            [name for name in old if name.rpartition(":")[2] not in others],
            "dvc repro",
        ),
        _print_check(
            "results", "those of dvc.lock", results, "git restore; or delete it, and in the cache too, then dvc repro"
        ),
        _print_check(
            "leftovers", "none of stages that are gone", _leftovers(found), "make prune; delete what it leaves"
        ),
        _print_check("pages", "have the results' tables", _outdated_pages(root), "make readme"),
        _print_check(
            "cache",
            "holds what it should",
            _damaged(found, locks, cache),
            "delete it; then dvc commit where results are ok, else dvc pull or repro",
        ),
        _remote(),
    ]
    if of_others:
        print(f"note {', '.join(of_others)}: made by other code or settings (make study)")
    if not all(good):
        sys.exit(1)


def hashes(locks: Iterable[dict[str, Any]], but: Collection[str] = ()) -> dict[str, str]:
    """The MD5 of all that the stages in lock files have made, by path, but for some stages."""
    stages = {name: stage for lock in locks for name, stage in lock["stages"].items() if name not in but}
    outs = [out for stage in stages.values() for out in stage.get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if "md5" in out}


def changed_results(root: Path, hashes: Mapping[str, str]) -> list[str]:
    """The files and folders that are here and do not have their MD5, whatever their times say."""
    ignored = ignored_by_dvc(root)
    return [path for path, value in hashes.items() if (found := _md5(root, path, ignored)) and found != value]


def changed_beside_records(root: Path, hashes: Mapping[str, str]) -> list[str]:
    """The same of a stale study, whose folder of records may have new ones, where it was interrupted: each is whole."""
    changed = []
    for path in changed_results(root, hashes):
        files = [file for file in sorted((root / path).rglob("*")) if file.is_file()]
        if files and all(file.suffix == ".json" for file in files):
            changed += [str(file.relative_to(root)) for file in files if not _is_sealed(file)]
        else:
            changed.append(path)
    return changed


def _is_sealed(file: Path) -> bool:
    try:
        return bool(read_sealed(file, ""))
    except InputError:
        return False


def _md5(root: Path, path: str, ignored: GitIgnoreSpec) -> str | None:
    """The MD5 of a file, or that which DVC gives a folder; None where there is nothing."""
    if not (root / path).is_dir():
        return md5(root / path) if (root / path).is_file() else None
    inside = [file.relative_to(root).as_posix() for file in (root / path).rglob("*") if file.is_file()]
    return hash_of_folder(path, {name: md5(root / name) for name in inside if not ignored.match_file(name)})


def stale(status: dict[str, list], locks: list[dict[str, Any]]) -> list[str]:
    """The stages that would run on account of code, settings or commands, or whose inputs other stages made anew.

    Args:
        status: what ``dvc status --json`` prints.
        locks: what the lock files hold.
    """
    stages = {name: stage for lock in locks for name, stage in lock["stages"].items()}
    made = hashes(locks)
    folders = {dep["path"] for stage in stages.values() for dep in stage.get("deps", [])} - made.keys()
    now = made | {folder: value for folder in folders if (value := hash_of_folder(folder, made))}

    def is_result(path: str) -> bool:
        return any(path == out or out.startswith(f"{path}/") or path.startswith(f"{out}/") for out in made)

    found = [
        name
        for name, stage in stages.items()
        if any(dep.get("md5") != now.get(dep["path"], dep.get("md5")) for dep in stage.get("deps", []))
    ]
    for name, changes in status.items():
        for change in changes:
            if change == "changed command" or not all(map(is_result, change.get("changed deps", {}))):
                found.append(name)
    return list(dict.fromkeys(found))


def hash_of_folder(folder: str, made: Mapping[str, str]) -> str | None:
    """The MD5 that DVC gives a folder of what stages have made: that of a list of its files; None if it has none."""
    inside = [(path.removeprefix(f"{folder}/"), md5) for path, md5 in made.items() if path.startswith(f"{folder}/")]
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(inside)]
    return hashlib.md5(json.dumps(entries).encode(), usedforsecurity=False).hexdigest() + ".dir" if entries else None


def apart(stages: Mapping[Path, Iterable[str]]) -> set[str]:
    """The stages of pipelines beside the one at the top, of all by their lock files."""
    return {name for lock, names in stages.items() if lock.parent != Path() for name in names}


def altered(status: dict[str, list], deleted: list[str]) -> list[str]:
    """The results that differ from what dvc.lock has of them, or are deleted though Git has them."""
    outs = {
        path: how
        for changes in status.values()
        for change in changes
        if isinstance(change, dict)
        for path, how in change.get("changed outs", {}).items()
    }
    return [
        path
        for path, how in outs.items()
        if how == "modified" or any(f"{file}/".startswith(f"{path}/") for file in deleted)
    ]


def _leftovers(found: Pipelines) -> list[str]:
    gone = [name for names in without_stage(found).values() for name in names]
    return [*map(str, leftovers(found)), *gone, *map(str, strays(found))]


def _outdated_pages(root: Path) -> list[str]:
    def is_filled(page: Path) -> bool:
        try:
            return filled(page, root) == page.read_text(encoding="utf-8")
        except InputError:  # a page or a result is missing
            return False

    return [str(page) for page in pages(root) if not is_filled(page)]


def _damaged(found: Pipelines, locks: Mapping[str, dict[str, Any]], cache: str) -> list[str]:
    names = None if cache == "all" else hashes(locks.values()).values()
    return [os.path.relpath(path, found.root) for path in damaged_objects(found.cache, names)]


def _remote() -> bool:
    if not _lines("dvc", "remote", "list"):
        return _print_check("remote", "none is set, nothing to push", [], "")
    missing = json.loads(_output("dvc", "data", "status", "--not-in-remote", "--json")).get("not_in_remote", [])
    return _print_check("remote", "has all data", missing, "dvc push")


def _print_check(what: str, good: str, faults: list[str], mend: str) -> bool:
    """Print the line of one check; returns whether it is good."""
    print(f"bad  {what}: {', '.join(dict.fromkeys(faults))} ({mend})" if faults else f"ok   {what}: {good}", flush=True)
    return not faults


def _lines(*command: str) -> list[str]:
    return _output(*command).splitlines()


def _output(*command: str) -> str:
    """What a command prints. Raises InputError with what it says where it fails."""
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if ended.returncode:
        raise InputError(f"{' '.join(command)}: {' '.join(ended.stderr.split()) or f'status {ended.returncode}'}")
    return ended.stdout


if __name__ == "__main__":
    cli.run(main)
