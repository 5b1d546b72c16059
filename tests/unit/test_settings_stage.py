"""What the first stage does for Git, where DVC has hidden a change from it."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_cnn.common.errors import InputError
from mnist_cnn.engine import native
from stages import settings
from tests.helpers import ROOT

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Git in a repository with settings, a page and a link, all committed a while ago."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)

    def run(*arguments: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
        return subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=True).stdout

    run("init", "--quiet")
    # The time of a file's entry cannot be set; it would tell the change if a second ended at the wrong moment.
    run("config", "core.trustctime", "false")
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    Path("page.md").write_text("old")
    Path("link").symlink_to("nowhere")
    run("add", "--all")
    run("commit", "--quiet", "--message", "state")
    return run


def check() -> None:
    """Run the stage in the folder."""
    written = (Path(".git", name) for name in ("checked", "computing", "drawing", "exporting"))
    settings.main(Path("params.yaml"), ROOT / "story.yaml", ROOT / "requirements.txt", *written)


def hide(git: Git, file: str, new: str) -> None:
    """Change a file to a text of equal length as DVC does at the start of an experiment: so that Git sees no change.

    The index knows the old text's time, which is the same to Git, and is itself younger.
    """
    second = int(time.time() - 5) * 10**9
    os.utime(file, ns=(second, second))
    git("update-index", "--refresh", "--", file)
    Path(file).write_text(new)
    os.utime(file, ns=(second, second))


@pytest.mark.parametrize("allowed", [True, False])
def test_git_sees_what_an_experiment_changed_although_sizes_are_equal(
    git: Git, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    before = Path("params.yaml").read_text()
    hide(git, "page.md", "new")
    model = "model_5" if allowed else "model_9"
    hide(git, "params.yaml", re.sub(r"^model: \w+", f"model: {model}", before, flags=re.MULTILINE))
    assert git("status", "--porcelain") == ""  # it is hidden
    monkeypatch.setenv("DVC_EXP_NAME", "name")
    if allowed:
        check()
    else:
        with pytest.raises(InputError, match="git stash push params.yaml"):
            check()
    assert git("status", "--porcelain") == " M page.md\n M params.yaml\n"
    git("stash", "push", "params.yaml")
    assert Path("params.yaml").read_text() == before
    assert git("status", "--porcelain") == " M page.md\n"


def test_files_that_dvc_has_not_just_written_and_other_runs_leave_times_alone(
    git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    def times() -> dict[str, int]:
        return {name: os.lstat(name).st_mtime_ns for name in ("page.md", "params.yaml", "link")}

    committed = times()
    check()
    assert times() == committed  # no experiment
    os.utime("page.md", (0, 0))
    monkeypatch.setenv("DVC_EXP_NAME", "name")
    check()
    assert times() == {name: time + 10**9 for name, time in committed.items()} | {"page.md": 0}
    assert git("status", "--porcelain") == ""


def test_kernels_that_are_asked_for_by_name_are_refused_where_they_cannot_compute(
    git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("engine: auto", "engine: native"))
    check()
    monkeypatch.setattr(native, "supports", lambda network: "there is no compiler")
    with pytest.raises(InputError, match="^params.yaml: models.model_1: train.engine: native .* there is no compiler"):
        check()
