"""The report of a small repository with two commits, as the entry point prints it, with the real git."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from mnist_cnn.common.errors import InputError
from tests.helpers import ROOT
from tools.pull_request import changes
from tools.pull_request.changes import stale_stages

FILES = ("params.yaml", "dvc.lock", "metrics/comparison.csv", "metrics/comparison.md", "metrics/selected.json")
OPTIONS = {"base": "main", "repro": "none", "experiment": "", "settings": ""}
PATHS = {
    "params": "params.yaml",
    "numbers": "metrics/comparison.csv",
    "selected": "metrics/selected.json",
    "table": "metrics/comparison.md",
    "lock": "dvc.lock",
    "pictures": "plots/pictures",
}
Render = Callable[..., str]


class Repository:
    """This repository's results on ``main``, and a branch ``change`` on which there is another commit to come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self) -> None:
        for file in FILES:
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, self.folder / file)
        (self.folder / "plots/pictures").mkdir(parents=True)
        (self.folder / "plots/pictures/a picture.png").write_bytes(b"picture")
        self.git("init", "--quiet", "--initial-branch", "main")
        self.commit()
        self.git("branch", "change")
        # What happens on main afterwards is none of the branch's doing.
        self.set("targets.mnist.max_epochs", 14)
        self.commit()
        self.git("switch", "--quiet", "change")

    def git(self, *arguments: str) -> str:
        environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        for role in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{role}_NAME": "test", f"GIT_{role}_EMAIL": "test@example.invalid"}
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "state")
        return self.git("rev-parse", "HEAD")

    def set(self, path: str, value: float) -> float:
        """Another value of a setting; returns the one before."""
        file = self.folder / "params.yaml"
        params = yaml.safe_load(file.read_text())
        *sections, key = path.split(".")
        section = params
        for name in sections:
            section = section[name]
        before, section[key] = section[key], value
        file.write_text(yaml.safe_dump(params, sort_keys=False))
        return float(before)

    def move(self, points: float) -> str:
        """Another test accuracy of the last model; returns the start of its line in a report."""
        file = self.folder / "metrics/comparison.csv"
        table = pd.read_csv(file)
        last, column = table.index[-1], "test_accuracy"
        before = table.loc[last, column]
        table.loc[last, column] = before + points
        table.to_csv(file, index=False)
        return f"| `{table.loc[last, 'model']}` | Test accuracy, % | {before:.2f} | {before + points:.2f} | "


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    Repository(folder).begin()
    return folder


@pytest.fixture
def repository(tmp_path: Path, begun: Path) -> Repository:
    return Repository(shutil.copytree(begun, tmp_path / "repository"))


@pytest.fixture
def render(repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Render:
    """Runs the entry point in the repository, outside of GitHub unless a test sets it up otherwise."""
    for name in list(os.environ):
        if name.startswith("GITHUB_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(repository.folder)

    def rendered(**options: str) -> str:
        given: dict[str, Any] = OPTIONS | options | {name: Path(value) for name, value in PATHS.items()}
        changes.main(**given)
        return capsys.readouterr().out

    return rendered


def test_a_branch_is_compared_with_where_it_left_the_base(repository: Repository, render: Render) -> None:
    fork = repository.git("rev-parse", "HEAD")
    moved = repository.move(-0.36)
    before = repository.set("train.seed", 99)
    head = repository.commit()
    text = render()
    assert text.startswith(f"## Results at `{head[:7]}`\n")
    assert f" against `main` at `{fork[:7]}`" in text
    assert f"{moved}▼ -0.36, worse" in text
    assert f"| `train.seed` | `{before:.0f}` | `99` |" in text
    assert "max_epochs" not in text
    assert f"git fetch origin {head}\ngit checkout {head}\nmake repro\n" in text
    assert "### Pictures" not in text


def test_what_is_not_committed_yet_is_reported_beforehand(repository: Repository, render: Render) -> None:
    def title() -> str:
        return f"## Results at `{repository.git('rev-parse', 'HEAD')[:7]}`\n"

    text = render()
    assert "No change: " in text and text.startswith(title())
    moved = repository.move(-0.36)
    (repository.folder / "new.py").touch()
    text = render()
    assert moved in text and not text.startswith(title())
    assert re.search("^- ⚠️ .*`metrics/comparison.csv`, `new.py`", text, re.MULTILINE)
    for number in range(9):
        (repository.folder / f"new_{number}.py").touch()
    text = render()
    assert re.search("`new_2.py` .*6", text) and "`new_3.py`" not in text
    repository.commit()
    assert render().startswith(title())


def test_a_pull_request_from_a_fork_shows_the_forks_pictures_and_commands(
    repository: Repository, render: Render, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"head": {"repo": {"full_name": "somebody/fork"}}}}))
    for name, value in {
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "owner/project",
        "GITHUB_RUN_ID": "5",
        "GITHUB_BASE_REF": "trunk|x",
        "GITHUB_EVENT_PATH": str(event),
    }.items():
        monkeypatch.setenv(name, value)
    head = repository.git("rev-parse", "HEAD")
    text = render(repro="success")
    page = f"https://github.com/somebody/fork/blob/{head}/plots/pictures/a%20picture.png"
    assert f"![apicture]({page}?raw=true)" in text
    assert f"git fetch https://github.com/somebody/fork {head}\n" in text
    assert f" against `trunk|x` at `{head[:7]}`" in text
    assert re.search(r"- ❌ .* failed .*\(https://github.com/owner/project/actions/runs/5\)", render(repro="failure"))
    repository.move(-0.36)
    text = render(base="HEAD", experiment="e", settings="a=1")
    assert "`gh run download 5 --repo owner/project --name results`\n" in text
    assert "### Pictures" not in text
    # The fork was deleted since.
    event.write_text(json.dumps({"pull_request": {"head": {"repo": None}}}))
    assert f"git fetch https://github.com/owner/project {head}\n" in render()


def test_a_folder_of_a_larger_repository_is_compared_with_itself(
    repository: Repository, render: Render, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/larger")
    monkeypatch.setenv("GITHUB_RUN_ID", "5")
    (tmp_path / "event.json").write_text("{}")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(tmp_path / "event.json"))
    files = [file.name for file in repository.folder.iterdir() if file.name != ".git"]
    inner = repository.folder / "é 名"
    inner.mkdir()
    repository.git("mv", *files, inner.name)
    (inner / "plots/pictures/ü.png").touch()
    head = repository.commit()
    monkeypatch.chdir(inner)
    text = render(base="HEAD", repro="success")
    assert "- ✅ `make repro` " in text and "No change: " in text
    pictures = f"https://github.com/owner/larger/blob/{head}/%C3%A9%20%E5%90%8D/plots/pictures"
    assert f"({pictures}/a%20picture.png?raw=true)" in text and f"![ü]({pictures}/%C3%BC.png?raw=true)" in text
    (inner / "plots/pictures/ü.png").write_text("another")
    (inner / "ß.py").touch()
    assert "Not committed: `é 名/plots/pictures/ü.png`, `é 名/ß.py`." in render(base="HEAD")


def test_a_reproduced_branch_says_so_and_shows_what_is_committed(repository: Repository, render: Render) -> None:
    assert "- ✅ `make repro` " in render(repro="success")
    moved = repository.move(0.05)
    text = render(repro="success")
    assert re.search(r"- ⚠️ `make repro` .* 0\.05 points", text)
    assert "No change: " in text
    assert moved in text


def test_results_of_older_code_are_called_so_and_those_of_the_run_are_shown(
    repository: Repository, render: Render
) -> None:
    lock = yaml.safe_load((repository.folder / "dvc.lock").read_text())
    lock["stages"]["train@model_5"]["params"]["params.yaml"]["train"]["seed"] = 99
    (repository.folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    moved = repository.move(-0.36)
    text = render(repro="success")
    assert re.search(r"- ⚠️ .* other code or settings \(stages: `train@model_5`\)", text)
    assert moved in text


@pytest.mark.parametrize("outcome", ["failure", "cancelled"])
def test_a_failed_run_leaves_the_committed_results_to_report_on(
    repository: Repository, render: Render, outcome: str
) -> None:
    moved = repository.move(-0.36)
    text = render(repro=outcome)
    assert "- ❌ `make repro` failed" in text
    assert moved not in text


def test_an_experiment_is_told_with_the_command_that_repeats_it(repository: Repository, render: Render) -> None:
    moved = repository.move(-0.36)
    text = render(base="HEAD", experiment="a|b", settings="models.model_7.max_lr=0.1  model=model_7\nx=$(y)`z`")
    assert text.startswith("## Experiment `a|b`\n")
    assert moved in text
    assert "dvc exp run -S models.model_7.max_lr=0.1 -S model=model_7 -S 'x=$(y)`z`'\n```\n" in text


def test_a_first_report_has_nothing_to_compare_with(repository: Repository, render: Render) -> None:
    repository.git("switch", "--quiet", "--orphan", "new")
    (repository.folder / "README.md").write_text("nothing yet\n")
    repository.commit()
    repository.git("checkout", "change", "--", ".")
    assert "- `new` has no results yet" in render(base="new")
    # 'make repro' made them, and nothing is committed.
    assert "⚠️ The committed results are of other code or settings" in render(base="new", repro="success")


def test_what_is_wrong_is_told_in_a_line(repository: Repository, render: Render) -> None:
    def refused(**options: str) -> str:
        with pytest.raises(InputError) as error:
            render(**options)
        return str(error.value)

    assert re.fullmatch("git merge-base nowhere HEAD: .+", refused(base="nowhere"))
    (repository.folder / FILES[2]).unlink()
    assert re.fullmatch(".*no results.*'make repro'.*", refused())
    (repository.folder / FILES[2]).write_text("nothing")
    assert re.fullmatch("this folder: .*damaged: .+", refused())
    (repository.folder / FILES[2]).write_bytes(b"\xff")
    assert re.fullmatch(f"{FILES[2]}: .+'dvc repro'.*", refused())
    repository.commit()
    repository.git("checkout", "main", "--", FILES[2])
    assert re.fullmatch(f"{FILES[2]} at HEAD: .+", refused())


def test_the_report_is_all_that_the_entry_point_prints(repository: Repository, render: Render) -> None:
    repository.move(-0.36)
    command = [
        sys.executable,
        "-m",
        "tools.pull_request.changes",
        *(f"--{name}={text}" for name, text in (OPTIONS | PATHS).items()),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=repository.folder, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", render())


def stage(cmd: str = "c", path: str = "code.py", md5: str = "1", out: str = "weights", **params: float) -> dict:
    return {
        "cmd": cmd,
        "deps": [{"path": path, "md5": md5}, {"path": "data/raw", "md5": "2"}],
        "params": {"params.yaml": params},
        "outs": [{"path": out, "md5": "3"}],
    }


def test_stages_are_stale_by_command_code_settings_and_not_by_what_other_stages_made() -> None:
    raw = {"cmd": "d", "outs": [{"path": "data/raw/file", "md5": "4"}]}
    committed = {"download": raw, "train": stage(lr=0.1)}
    assert stale_stages(committed, committed) == []
    assert stale_stages({}, committed) == ["download", "train"]
    for changed in (stage("other", lr=0.1), stage(md5="9", lr=0.1), stage(path="other.py", lr=0.1), stage(lr=0.2)):
        assert stale_stages(committed, committed | {"train": changed}) == ["train"]
    assert stale_stages(committed, committed | {"evaluate": stage(path="weights")}) == ["evaluate"]
    made_otherwise = stage(lr=0.1)
    made_otherwise["deps"][1]["md5"] = made_otherwise["outs"][0]["md5"] = "7"
    assert stale_stages(committed, committed | {"train": made_otherwise}) == []
