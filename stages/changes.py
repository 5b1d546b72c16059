"""The report on what has changed against another branch, for a pull request, an experiment, or a look beforehand."""

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml

from mnist_cnn.change_report import (
    Base,
    Results,
    Source,
    code,
    folded,
    metrics_changed,
    parse_results,
    report,
    reproduction,
)
from mnist_cnn.errors import InputError
from stages import cli


def main(
    base: str,
    repro: str,
    experiment: str,
    settings: str,
    params: Path,
    numbers: Path,
    selected: Path,
    table: Path,
    lock: Path,
    pictures: Path,
) -> None:
    """Print, as Markdown, what differs from where the last commit has parted from ``base``, a branch or a commit.

    ``repro`` tells how 'make repro' ended just before: success, failure, or none where it did not run. Then the
    report is on the results in the folder; else on the committed ones, unless those are of older code, and it tells
    whether they were reproduced. ``experiment`` is the name of an experiment with ``settings``, or empty.
    """
    head, parted = _git("rev-parse", "HEAD"), _git("merge-base", base, "HEAD")
    where = _Where.now(head)
    files = (params, numbers, selected, table)
    here = _results(lambda file: file.read_text(encoding="utf-8") if file.is_file() else None, files, "this folder")
    committed = _results(lambda file: _committed("HEAD", file), files, "HEAD")
    against = Base(where.base or base, parted, _results(lambda file: _committed(parted, file), files, base))

    shown, notes, sections = here, [], []
    if repro == "success":
        stale = stale_stages(_stages(_committed("HEAD", lock)), _stages(lock.read_text(encoding="utf-8")))
        if stale:
            notes.append(
                f"⚠️ The committed results are of other code or settings (stages: {', '.join(map(code, stale))}). "
                f"This report is on what `make repro` has made of those in the commit{where.to_commit}"
            )
        elif committed and here:
            shown = committed
            told = reproduction(committed, here)
            notes.append(told)
            if not told.startswith("✅"):
                sections.append(folded("The committed results against those here", metrics_changed(committed, here)))
    elif repro != "none":
        shown = committed
        notes.append(f"❌ `make repro` failed{where.log}: this report is on the committed results, whatever made them")
    if shown is None:
        raise InputError("there are no results to report on; 'make repro' makes them")

    title, command = f"Results at {code(head[:7])}", "make repro"
    if experiment:
        title = f"Experiment {code(experiment)}"
        command = shlex.join(["dvc", "exp", "run", *(word for setting in settings.split() for word in ("-S", setting))])
    shown_pictures = _git("ls-tree", "--name-only", "HEAD", f"{pictures}/").splitlines() if shown is committed else []
    addresses = [f"{where.raw}/{quote(name)}" for name in shown_pictures if where.raw]
    print(report(title, notes, against, shown, Source(where.repository, head, command, addresses), sections), end="")


class _Where(NamedTuple):
    """Where this runs: in GitHub Actions, or in a folder of one's own, where most of it is empty."""

    repository: str
    raw: str
    base: str
    log: str
    to_commit: str

    @classmethod
    def now(cls, head: str) -> "_Where":
        server, home = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY", "")
        if not server:
            return cls("origin", "", "", "", "")
        event = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
        fork = event.get("pull_request", {}).get("head", {}).get("repo") or {}
        name, run = fork.get("full_name", home), os.environ["GITHUB_RUN_ID"]
        return cls(
            f"{server}/{name}",
            f"https://raw.githubusercontent.com/{name}/{head}",
            os.environ.get("GITHUB_BASE_REF", ""),
            f" in [this run]({server}/{home}/actions/runs/{run})",
            f"; to commit them: `gh run download {run} --repo {home} --name results`",
        )


def _results(read: Callable[[Path], str | None], files: tuple[Path, ...], where: str) -> Results | None:
    """The results from the files' texts, or None where one is missing."""
    params, numbers, selected, table = map(read, files)
    if params is None or numbers is None or selected is None or table is None:
        return None
    return parse_results(params, numbers, selected, table, where)


def stale_stages(committed: dict[str, Any], made: dict[str, Any]) -> list[str]:
    """The stages that ran with other commands, settings or files than the committed lock file has of them.

    Args:
        committed, made: the stages of two lock files. What one stage makes for another does not count: that may come
            out otherwise on another processor.
    """
    outs = [out["path"] for stage in made.values() for out in stage.get("outs", [])]

    def given(stage: dict[str, Any]) -> list[object]:
        own = [dep for dep in stage.get("deps", []) if not any(f"{out}/".startswith(f"{dep['path']}/") for out in outs)]
        return [stage["cmd"], stage.get("params"), own]

    return [name for name, stage in made.items() if name not in committed or given(stage) != given(committed[name])]


def _stages(lock: str | None) -> dict[str, Any]:
    return yaml.safe_load(lock)["stages"] if lock else {}


def _committed(revision: str, file: Path) -> str | None:
    """A file's text at a revision, or None where it has none."""
    shown = subprocess.run(["git", "show", f"{revision}:{file.as_posix()}"], capture_output=True, encoding="utf-8")
    return None if shown.returncode else shown.stdout


def _git(*arguments: str) -> str:
    """What Git prints. Raises InputError with what it says where it fails."""
    ended = subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8")
    if ended.returncode:
        said = " ".join(ended.stderr.split()) or "nothing in common"
        raise InputError(f"git {' '.join(arguments)}: {said}")
    return ended.stdout.strip()


if __name__ == "__main__":
    cli.run(main)
