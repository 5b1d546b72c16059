"""The report on what has changed against another branch, for a pull request, an experiment, or a look beforehand."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from tools.lock import stages_of
from tools.pull_request.report import Base, Results, Source, code, parse_results, report, reproduction

_MOST_NAMED = 5  # of the files that are not committed


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

    ``repro`` tells how 'make repro' ended just before: success, failure, or none where it did not run and the report
    is on what is in the folder. ``experiment`` is the name of an experiment with ``settings``, or empty.

    Args:
        base: a branch or a commit.
        repro: how 'make repro' ended just before: success, failure, or none.
        experiment: an experiment's name, or empty.
        settings: the experiment's settings, as they were typed.
        params: the settings.
        numbers: the comparison as CSV.
        selected: the selected model's metrics.
        table: the comparison with its analysis, Markdown.
        lock: DVC's lock file.
        pictures: the folder of figures.
    """
    head, parted, run = _git("rev-parse", "HEAD"), _git("merge-base", base, "HEAD"), _Run.now()
    files = (params, numbers, selected, table)
    here = _results(_in_folder, files, lock, "this folder")
    committed = _results(lambda file: _committed("HEAD", file), files, lock, "HEAD")
    before = Base(run.base or base, parted, _results(lambda file: _committed(parted, file), files, lock, base))

    locks = _stages(_committed("HEAD", lock)), _stages(_in_folder(lock))
    shown, notes, sections = _judged(repro, committed, here, stale_stages(*locks), run)
    if shown is None:
        raise InputError("there are no results to report on; 'make repro' makes them")

    title, command = f"Results at {code(head[:7])}", "make repro"
    if experiment:
        title = f"Experiment {code(experiment)}"
        notes.append(f"This report is on what the experiment has made{run.to_download}")
        command = shlex.join(["dvc", "exp", "run", *(word for setting in settings.split() for word in ("-S", setting))])
    elif repro == "none" and (files_changed := _uncommitted()):
        title += ", with changes that are not committed"
        notes.append(
            f"⚠️ Not committed: {files_changed}. This report is on them, too; the commands at its end give the commit "
            "without them"
        )
    names = _git_names("ls-tree", "--full-name", "--name-only", "HEAD", f"{pictures}/")
    addresses = [f"{run.files}/{head}/{quote(name)}?raw=true" for name in names if run.files and shown is committed]
    print(report(title, notes, before, shown, Source(run.repository, head, command, addresses), sections), end="")


def _judged(
    repro: str, committed: Results | None, here: Results | None, stale: list[str], run: "_Run"
) -> tuple[Results | None, list[str], list[str]]:
    """The results to report on, notes on how they were made, and sections about that."""
    if repro == "none":
        return here, [], []
    if repro != "success":
        return committed, [f"❌ `make repro` failed{run.link}: this report is on the committed results"], []
    if stale or not (committed and here):
        note = (
            f"⚠️ The committed results are of other code or settings (stages: {', '.join(map(code, stale))}); this "
            f"report is on what `make repro` has made of the commit{run.to_download}"
        )
        return here, [note], []
    found = reproduction(committed, here)
    return committed, [found.line], found.sections


def _uncommitted() -> str:
    """The files that differ from the last commit or are new, some of them by name; empty where there are none."""
    names = _git_names("diff", "--name-only", "HEAD")
    names += _git_names("ls-files", "--others", "--exclude-standard", "--full-name")
    others = len(names) - _MOST_NAMED
    return ", ".join(map(code, names[:_MOST_NAMED])) + (f" and {others} more" if others > 0 else "")


class _Run(NamedTuple):
    """The run in GitHub Actions that this is part of; in a folder of one's own nearly all is empty.

    ``repository`` and ``files`` are where the reported commit and its files can be had, ``base`` is the branch that a
    pull request is for; ``link`` and ``to_download`` are ends of sentences.
    """

    repository: str = "origin"
    files: str = ""
    base: str = ""
    link: str = ""
    to_download: str = ""

    @classmethod
    def now(cls) -> "_Run":
        server = os.environ.get("GITHUB_SERVER_URL")
        if not server:
            return cls()
        home, number = os.environ["GITHUB_REPOSITORY"], os.environ["GITHUB_RUN_ID"]
        event = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
        # A fork, it may be; or nothing, where that is deleted.
        source = (event.get("pull_request", {}).get("head", {}).get("repo") or {}).get("full_name", home)
        return cls(
            repository=f"{server}/{source}",
            # The reader's own session fetches pictures from there, so that those of a private repository show, too:
            # the host of raw files knows nobody. Source: GitHub's "Basic writing and formatting syntax", images.
            files=f"{server}/{source}/blob",
            base=os.environ.get("GITHUB_BASE_REF", ""),
            link=f" in [this run]({server}/{home}/actions/runs/{number})",
            to_download=f"; to get it: `gh run download {number} --repo {home} --name results`",
        )


def _results(read: Callable[[Path], str | None], files: tuple[Path, ...], lock: Path, where: str) -> Results | None:
    """The results from the files' texts, or None where one is missing."""
    params, numbers, selected, table = map(read, files)
    if params is None or numbers is None or selected is None or table is None:
        return None
    downloaded = _stages(read(lock)).get("download", {}).get("outs", [])
    raw = next((str(out.get("md5")) for out in downloaded), "")
    return parse_results(params, numbers, selected, table, where, raw)


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


def _in_folder(file: Path) -> str | None:
    """A file's text, or None where it is missing. Raises InputError where it is no text."""
    try:
        return file.read_text(encoding="utf-8") if file.exists() else None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: cannot be read ({error}); 'dvc repro' restores it") from None


# What two revisions have in common is parsed once.
@cache
def _stages(lock: str | None) -> dict[str, Any]:
    return stages_of(lock, "dvc.lock") if lock else {}


def _committed(revision: str, file: Path) -> str | None:
    """A file's text at a revision, or None where it has none; this folder may be part of a larger repository.

    Raises InputError where it is no text.
    """
    shown = subprocess.run(["git", "show", f"{revision}:./{file.as_posix()}"], capture_output=True)
    try:
        return None if shown.returncode else shown.stdout.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} at {revision}: cannot be read ({error})") from None


def _git_names(command: str, *arguments: str) -> list[str]:
    """The names that Git lists, as they are: it would put those with other letters than English into quotes."""
    return list(filter(None, _git(command, "-z", *arguments).split("\0")))


def _git(*arguments: str) -> str:
    """What Git prints. Raises InputError with what it says where it fails."""
    ended = subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8", errors="replace")
    if ended.returncode:
        said = " ".join(ended.stderr.split()) or "nothing in common"
        raise InputError(f"git {' '.join(arguments)}: {said}")
    return ended.stdout.strip()


if __name__ == "__main__":
    # A document, whatever the terminal.
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    cli.run(main)
