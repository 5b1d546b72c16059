"""``make verify`` on a project where something does not fit."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.small_project import Project, printed, run_printed, stages_of


def verify(project: Project) -> list[str]:
    """The lines that are not ok; the status says whether there are any."""
    ended = project.run("python", "-m", "tools.verify", "--root", ".", "--cache", "named", check=False)
    assert "Traceback" not in ended.stderr
    bad = [line for line in ended.stdout.splitlines() if not line.startswith("ok ")]
    assert ended.returncode == (1 if bad else 0), ended.stderr
    return bad


def test_each_fault_is_named_in_its_line(stubbed_with_pages: Project) -> None:
    project = stubbed_with_pages
    assert verify(project) == []

    def edit(path: str, old: str, new: str) -> None:
        text = project.read(path)
        assert old in text
        (project.folder / path).write_text(text.replace(old, new))

    edit("params.yaml", "model: model_5", "model: model_1")
    assert verify(project) == ["bad  dvc.lock: settings, report (dvc repro)"]
    project.run("git", "restore", "params.yaml")

    edit("src/mnist_cnn/models/model_1.py", '"""', '"""A change. ')
    assert verify(project) == [f"bad  dvc.lock: settings, {', '.join(stages_of('model_1'))} (dvc repro)"]
    project.run("git", "restore", "src")

    # New results, and the tables of before.
    edit("params.yaml", "batch_size: 32", "batch_size: 31")
    project.dvc("repro", "evaluate")
    assert any(line.startswith("bad  dvc.lock: ") and "report" in line for line in verify(project))
    project.run("git", "checkout", "--quiet", ".")
    project.dvc("checkout")

    edit("metrics/model_1.json", '"parameters": 7000', '"parameters": 7001')
    assert [line.partition(" (")[0] for line in verify(project)] == ["bad  results: metrics/model_1.json"]
    (project.folder / "metrics/model_1.json").unlink()
    assert [line.partition(" (")[0] for line in verify(project)] == ["bad  results: metrics/model_1.json"]
    project.run("git", "restore", "metrics")

    edit("README.md", "| **model_1** |", "| **model one** |")
    assert verify(project) == ["bad  pages: README.md (make readme)"]
    project.run("git", "restore", "README.md")


def try_to_commit_stale_results(project: Project) -> None:
    """With the hook that the page prints: it keeps them out, and lets a commit pass before."""
    [hook] = [command for command in printed("docs/using.md", "When …") if "pre-commit" in command]
    run_printed(project, hook)
    project.run("git", "commit", "--quiet", "--allow-empty", "--message", "nothing new")
    project.edit_params(lambda params: params.update(model="model_1"))
    project.run("git", "add", "params.yaml")
    ended = project.run("git", "commit", "--message", "stale", check=False)
    assert ended.returncode == 1
    assert "bad  dvc.lock: settings, report" in ended.stdout + ended.stderr


@pytest.mark.parametrize("how", ["submodule", "folder"])
def test_a_project_within_another_repository_is_verified_and_has_its_hook(
    stubbed_with_pages: Project, tmp_path: Path, how: str
) -> None:
    outer, folder = Project(tmp_path / "outer", stubbed_with_pages.mirror), stubbed_with_pages.folder
    outer.folder.mkdir()
    outer.run("git", "init", "--quiet")
    if how == "submodule":
        outer.run("git", "-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(folder), "inner")
    else:
        outer.run("git", "clone", "--quiet", str(folder), "inner")
        shutil.rmtree(outer.folder / "inner/.git")
        outer.commit()
        # In another working tree of it, where Git tells its hooks where the repository is.
        outer.run("git", "worktree", "add", "--quiet", str(tmp_path / "tree"))
        outer = Project(tmp_path / "tree", outer.mirror)
    inner = Project(outer.folder / "inner", outer.mirror)
    assert verify(inner) == []
    try_to_commit_stale_results(inner)
    assert verify(inner) == ["bad  dvc.lock: settings, report (dvc repro)"]


def test_what_the_remote_lacks_is_named(stubbed_with_pages: Project, tmp_path: Path) -> None:
    project = stubbed_with_pages
    project.dvc("remote", "add", "--local", "--default", "shelf", str(tmp_path / "shelf"))
    [line] = verify(project)
    assert line.startswith("bad  remote: ") and "checkpoints/model_1.safetensors" in line
    assert line.endswith("(dvc push)")
    project.dvc("push")
    assert verify(project) == []
    project.run("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone", project.mirror)
    clone.dvc("remote", "add", "--local", "--default", "shelf", str(tmp_path / "shelf"))
    clone.dvc("pull")
    assert clone.repro() == []


def test_a_clone_without_data_is_verified_and_a_hook_keeps_stale_results_out(
    stubbed_with_pages: Project, tmp_path: Path
) -> None:
    project = stubbed_with_pages
    project.run("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone", project.mirror)
    assert verify(clone) == []
    try_to_commit_stale_results(clone)


def test_a_renamed_model_leaves_nothing_of_its_old_name(stubbed_with_pages: Project) -> None:
    project = stubbed_with_pages
    models = project.folder / "src/mnist_cnn/models"
    (models / "model_1.py").rename(models / "renamed.py")

    def change(params: dict[str, Any]) -> None:
        params["models"] = {"renamed": params["models"]["model_1"], "model_5": params["models"]["model_5"]}

    before = {path: path.read_bytes() for path in project.folder.glob("plots/history/*")} | {
        project.folder / "dvc.lock": (project.folder / "dvc.lock").read_bytes()
    }
    project.edit_params(lambda params: params.update(models={"unknown": params["models"]["model_5"]}))
    repro = ("python", "-m", "tools.repro", "--jobs", "1", "--lock", "dvc.lock")
    assert project.run(*repro, check=False).returncode != 0
    assert all(path.read_bytes() == content for path, content in before.items())  # refused before anything goes
    project.run("git", "checkout", "--quiet", "params.yaml")

    project.edit_params(change)
    (project.folder / "story.yaml").write_text("data: mnist\nmodels: {}\n")
    [left] = [line for line in verify(project) if line.startswith("bad  leftovers: ")]
    assert "plots/history/model_1.csv" in left and "train@model_1" in left and "model_5" not in left
    stray = project.folder / "plots/history/of_mine.csv"
    stray.touch()
    (project.folder / "plots/history/.model_5.csv.swp").touch()
    refused = project.run(*repro, check=False)
    assert refused.returncode == 1 and "error: plots/history/of_mine.csv: " in refused.stderr
    [named] = [line for line in verify(project) if line.startswith("bad  leftovers: ")]
    assert named.startswith("bad  leftovers: plots/history/of_mine.csv (")
    stray.unlink()
    project.run(*repro)
    project.run("python", "-m", "tools.readme", "--root", ".")
    assert verify(project) == []
    listed = project.run("git", "ls-files", "--others", "--cached").stdout.splitlines()
    there = [name for name in listed if (project.folder / name).exists()]
    made = [name for name in there if name.startswith(("metrics/", "plots/", "checkpoints/", "data/"))]
    assert any("renamed" in name for name in made)
    assert not [name for name in made if "model_1" in name]
    assert "model_1" not in project.read("dvc.lock")


def test_a_flipped_bit_in_the_cache_or_in_a_result_is_found(stubbed: Project) -> None:
    weights = stubbed.folder / "checkpoints/model_1.safetensors"
    name = hashlib.md5(weights.read_bytes()).hexdigest()
    cached = stubbed.folder / ".dvc/cache/files/md5" / name[:2] / name[2:]
    in_folders = [stubbed.folder / name for name in ("data/raw/MNIST/raw/file", "metrics/cards/card.md")]
    for file in (weights, cached, *in_folders):
        stat, whole = file.stat(), file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        file.chmod(0o444)  # DVC believes what is read-only
    lines = [line.partition(" (")[0] for line in verify(stubbed)]
    [results] = [line for line in lines if line.startswith("bad  results: ")]
    named = results.removeprefix("bad  results: ").split(", ")
    assert set(named) == {"checkpoints/model_1.safetensors", "data/raw", "metrics/cards"}
    assert f"bad  cache: {cached.relative_to(stubbed.folder)}" in lines
