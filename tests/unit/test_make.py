"""What 'make' says there is, and the pieces of ``make quick`` and ``make repro``."""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from mnist_cnn.common.errors import InputError
from mnist_cnn.settings.params import load
from tests.helpers import ROOT
from tools import repro
from tools.quick import check_learned, chosen_models, copy_repository, scale_down, scratch_folder

# ---- make help


@pytest.mark.parametrize("goals", [(), ("help",)])
def test_make_lists_its_targets_with_their_time_where_nothing_is_installed(
    tmp_path: Path, goals: tuple[str, ...]
) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("make", "sh", "awk"):
        program = shutil.which(name)
        assert program
        (tools / name).symlink_to(program)
    ended = subprocess.run(["make", *goals], cwd=tmp_path, env={"PATH": str(tools)}, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    listed = re.findall(r"^make (\S+) +(\S.*?)  +(\S.+)$", ended.stdout, re.MULTILINE)
    phony = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    # A dash is in the names of what is a part of another.
    assert {name for name, _, _ in listed} == {name for name in " ".join(phony).split() if "-" not in name}
    assert all(re.search(r"second|min|hour", takes) for _, takes, _ in listed)
    assert max(map(len, ended.stdout.splitlines())) <= 120
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Makefile", "tools"]


# ---- quick


@pytest.mark.parametrize(
    ("named", "chosen"), [("", ["model_1", "model_7"]), ("model_3  model_2", ["model_3", "model_2"])]
)
def test_settings_are_scaled_down_and_never_up(tmp_path: Path, named: str, chosen: list[str]) -> None:
    params = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", params)
    before = load(params)
    most = max(recipe.epochs for recipe in before.models.values())
    scale_down(params, list(before.models), images=before.split.train + 1, epochs=most + 1)
    assert load(params) == before
    assert chosen_models(named, before) == chosen
    scale_down(params, chosen, images=1000, epochs=2)
    after = load(params)
    assert after.split == before.split.model_copy(update={"train": 1000})
    assert after.models == {name: before.models[name].model_copy(update={"epochs": 2}) for name in chosen}
    assert after.model in chosen
    changed = {"splits", "models", "model"}
    assert before.model_dump(exclude=changed) == after.model_dump(exclude=changed)


def test_an_unknown_model_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(InputError, match="'model_9'.*model_1, model_2"):
        chosen_models("model_1 model_9", load(ROOT / "params.yaml"))


def test_what_git_lists_or_would_add_is_copied_as_it_is_now(tmp_path: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "copy"
    root.mkdir()
    with pytest.raises(InputError, match="not in Git"):
        copy_repository(root, folder, lambda name: True)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    files = {"kept.txt": "old", "gone.txt": "", "made/result.txt": "", "a/ü b.sh": "", "ignored.txt": ""}
    for name, text in {**files, ".gitignore": "ignored.txt\n"}.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    (root / "a/ü b.sh").chmod(0o755)
    (root / "kept.txt").write_text("new")
    (root / "new.txt").touch()
    (root / "gone.txt").unlink()
    copy_repository(root, folder, lambda name: not name.startswith("made/"))
    copied = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert copied == {".gitignore", "kept.txt", "new.txt", "a/ü b.sh"}
    assert (folder / "kept.txt").read_text() == "new" and (folder / "a/ü b.sh").stat().st_mode & 0o111


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, InputError])
@pytest.mark.parametrize("keep", [False, True])
def test_the_folder_goes_however_the_trial_ends_unless_it_is_kept_and_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[BaseException] | None,
    keep: bool,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = signal.getsignal(signal.SIGINT)
    try:
        with scratch_folder(keep=keep) as folder:
            (folder / "object").touch(0o444)
            if error:
                raise error
    except (KeyboardInterrupt, InputError):
        pass
    assert list(tmp_path.iterdir()) == ([folder] if keep else [])
    assert (str(folder) in capsys.readouterr().out) == keep
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("accuracies", "poor"), [([80.0, 99.0], []), ([79.9, 99.0], ["a"]), ([10.0, None], ["a", "b"])]
)
def test_a_model_that_learns_nothing_is_named(tmp_path: Path, accuracies: list[float], poor: list[str]) -> None:
    numbers = tmp_path / "numbers.csv"
    pd.DataFrame({"model": ["a", "b"], "val_accuracy": accuracies}).to_csv(numbers, index=False)
    if not poor:
        check_learned(numbers, 80)
        return
    with pytest.raises(InputError) as refused:
        check_learned(numbers, 80)
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == poor


# ---- repro


def test_what_dvc_says_at_each_call_is_left_out_and_what_stages_say_is_not() -> None:
    hints = "To track the changes with git, run:\n\n\tgit add dvc.lock\n\nTo enable auto staging, run:\n\n"
    said = (
        "\nStage 'a' didn't change, skipping\nRunning stage 'b':\n> command\n\n\n  [INFO] a table\n"
        f"Updating lock file 'dvc.lock'\n\n{hints}\tdvc config core.autostage true\n"
        "Use `dvc push` to send your updates to remote storage.\nData and pipelines are up to date.\n"
    )
    told = "Running stage 'b':\n> command\n\n  [INFO] a table\nUpdating lock file 'dvc.lock'\n"
    assert "".join(repro.worth_telling(said.splitlines(keepends=True))) == told


@pytest.mark.parametrize(
    ("ran", "remotes", "pushed"), [([], ["store"], False), (["report"], ["store"], True), (["report"], [], False)]
)
def test_a_run_ends_with_one_line_which_names_pushing_where_that_would_do_something(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ran: list[str],
    remotes: list[str],
    pushed: bool,
) -> None:
    for name, value in {"_dvc": ran, "_remotes": remotes, "pipelines": None, "prune": None, "strays": []}.items():
        monkeypatch.setattr(repro, name, lambda *_, value=value: value)
    monkeypatch.setattr(repro, "interrupted_by_signals", lambda: None)
    repro.main(1, tmp_path / "dvc.lock")
    [line] = capsys.readouterr().out.splitlines()
    assert "up to date" in line and ("dvc push" in line and "store" in line) == pushed
