"""DVC's cache as a later run in CI starts from it."""

import hashlib
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.pipeline.tiny_project import objects, tiny_project

PIPELINE = b"""
stages:
  train:
    cmd: cat recipe > weights && cat recipe recipe > history.csv
    deps: [recipe]
    outs: [weights]
    plots: [{history.csv: {cache: false}}]
"""


def test_what_has_run_is_not_run_again_and_what_is_of_no_use_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a model has failed, dvc.lock is not committed: what the others have made is found by the cache alone."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    project = tiny_project(tmp_path / "project", {"dvc.yaml": PIPELINE, "recipe": b"new"})
    cache = project.folder / ".dvc/cache"
    assert project.repro() == ["train"]
    useless = cache / "files/md5/00/000000000000000000000000000000"
    useless.parent.mkdir(exist_ok=True)
    useless.write_bytes(b"of an older version")
    project.run("python", "-m", "tools.tidy", "--lock", "dvc.lock", "--cache", ".dvc/cache")
    assert not useless.exists()
    for name, path in objects(cache).items():
        assert hashlib.md5(path.read_bytes()).hexdigest() == name and path.stat().st_mode & 0o777 == 0o444

    for name in ("dvc.lock", "weights", "history.csv"):
        (project.folder / name).unlink()
    assert project.repro() == []
    assert (project.read("weights"), project.read("history.csv")) == ("new", "newnew")
