"""``make verify`` where the study is of other settings, or never ran: it is named, and asked for at no commit."""

from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.pipeline.tiny_project import tiny_project

PIPELINE = """
stages:
  {0}:
    cmd: cp plan.yaml made
    deps: [plan.yaml]
    outs: [{{made: {{cache: false}}}}]
"""


def test_a_stale_pipeline_is_a_note_beside_the_one_at_the_top_and_a_fault_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    files = {"dvc.yaml": PIPELINE.format("top").encode(), "study/dvc.yaml": PIPELINE.format("aside").encode()}
    plans = dict.fromkeys(("plan.yaml", "study/plan.yaml", "README.md"), b"one")
    project = tiny_project(tmp_path / "project", files | plans)
    project.dvc("repro", "--all-pipelines")
    project.commit()

    def verify() -> tuple[int, list[str]]:
        ended = project.run("python", "-m", "tools.verify", "--root", ".", "--cache", "named", check=False)
        return ended.returncode, [line for line in ended.stdout.splitlines() if not line.startswith("ok ")]

    (project.folder / "study/plan.yaml").write_text("two")
    status, [note] = verify()
    assert status == 0 and note.startswith("note aside: ")
    (project.folder / "plan.yaml").write_text("two")
    status, [fault, same] = verify()
    assert status == 1 and fault.startswith("bad  dvc.lock: top ") and same == note
    project.run("git", "checkout", "--quiet", ".")
    project.run("git", "rm", "--quiet", "study/dvc.lock", "study/made")
    assert verify() == (0, [note])
