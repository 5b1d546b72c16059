"""What is recorded is what ran: a stage whose inputs change while it runs fails, by the real dvc."""

import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.helpers import ROOT
from tests.pipeline.small_project import Project

PIPELINE = """
stages:
  slow:
    foreach: ${models}
    do:
      cmd: python -m stages.slow --model ${key} --out out/${key}.txt
      params: [shared, data, "models.${key}", "split.${data}"]
      deps: [data/images, data/one.txt, stages/__init__.py, stages/slow.py, "src/models/${key}.py"]
      outs: ["out/${key}.txt"]
"""
PARAMS = """
data: mine
shared: {seed: 1, rate: 0.1}
models:
  a: {epochs: 1, rate: 0.1}
  b: {epochs: 1, rate: 0.1}
split:
  mine: {size: 1}
  theirs: {size: 1}
"""
# Waits as long as another process wants it to, once while it is imported.
STAGE = """
import atexit
import time
from pathlib import Path

from mnist_cnn.common.yaml import read_yaml
from stages import run

# What takes long at the end of a process, such as PyTorch's: meanwhile something may be edited.
atexit.register(Path("late").touch)


def wait(name):
    Path(f"{name}.reached").touch()
    while not Path(f"{name}.passed").exists():
        time.sleep(0.01)


wait("import")


def main(model: str, out: Path) -> None:
    read_yaml(Path("params.yaml"))
    wait("main")
    out.parent.mkdir(exist_ok=True)
    out.write_text(model)


if __name__ == "__main__":
    run(main)
"""


@pytest.fixture
def small(tmp_path: Path) -> Project:
    """A pipeline of one slow stage for two models, with this repository's ``stages`` package."""
    folder = tmp_path / "small"
    shutil.copytree(ROOT / "src/mnist_cnn/common", folder / "src/mnist_cnn/common")
    shutil.copy(ROOT / "src/mnist_cnn/__init__.py", folder / "src/mnist_cnn")
    for name, content in {
        "stages/__init__.py": (ROOT / "stages/__init__.py").read_text(),
        "stages/slow.py": STAGE,
        "src/models/a.py": "A = 1\n",
        "src/models/b.py": "B = 1\n",
        "data/one.txt": "1",
        "data/images/a.txt": "1",
        "data/images/b.txt": "1",
        "dvc.yaml": PIPELINE,
        "params.yaml": PARAMS,
        ".dvcignore": (ROOT / ".dvcignore").read_text(),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    project = Project(folder, folder)
    project.dvc("init", "--no-scm", "--quiet")
    return project


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def reproduced(small: Project, *edits: tuple[str, Callable[[], object]]) -> tuple[int, list[str]]:
    """Reproduce ``slow@a`` with edits at the moments they name; the status and the lines that name a fault."""
    process = small.start(sys.executable, "-m", "dvc", "repro", "slow@a")
    for moment in ("import", "main"):
        wait_for((small.folder / f"{moment}.reached").exists)
        for when, edit in edits:
            if when == moment:
                edit()
        (small.folder / f"{moment}.passed").touch()
    _, errors = process.communicate(timeout=60)
    for flag in small.folder.glob("*.reached"):
        flag.unlink()
    for flag in small.folder.glob("*.passed"):
        flag.unlink()
    return process.returncode, [line for line in errors.splitlines() if line.startswith("error: ")]


def test_a_stage_whose_inputs_change_while_it_runs_fails_and_nothing_is_recorded(small: Project) -> None:
    def write(path: str, text: str) -> Callable[[], object]:
        return lambda: (small.folder / path).write_text(text)

    def put(*changes: tuple[str, str]) -> Callable[[], object]:
        def change() -> None:
            text = small.read("params.yaml")
            for old, new in changes:
                assert old in text
                text = text.replace(old, new)
            write("params.yaml", text)()

        return change

    status, faults = reproduced(
        small,
        ("import", write("src/models/a.py", "A = 2\n")),
        ("import", write("data/images/c.txt", "1")),
        ("main", write("data/one.txt", "2")),
        ("main", (small.folder / "data/images/b.txt").unlink),
        (
            "main",
            put(("seed: 1", "seed: 2"), ("a: {epochs: 1", "a: {epochs: 010"), ("mine: {size: 1", "mine: {size: 2")),
        ),
    )
    assert status != 0 and not (small.folder / "dvc.lock").exists()
    [fault] = faults
    files = ("src/models/a.py", "data/images/c.txt", "data/one.txt", "data/images/b.txt")
    assert fault.startswith("error: slow@a: ") and all(name in fault for name in files)
    assert all(name in fault for name in ("shared.seed", "a.epochs", "split.mine.size"))
    assert "rate" not in fault and "images/a.txt" not in fault

    # What it does not follow from may change, and what editors leave for a moment. It ends before Python is done.
    (small.folder / "late").unlink()
    status, faults = reproduced(
        small,
        ("import", put(("theirs: {size: 1", "theirs: {size: 2"), ("b: {epochs: 1", "b: {epochs: 2"))),
        ("import", write("src/models/b.py", "B = 2\n")),
        ("main", write("data/images/.one.txt.swp", "1")),
        ("main", write("data/images/one.txt~", "1")),
    )
    assert (status, faults) == (0, [])
    assert not (small.folder / "late").exists()
    # What DVC counts, the stage counts: the same files are left out.
    assert "slow@a:" in small.read("dvc.lock") and small.repro("slow@a") == []


def test_what_was_changed_back_is_noticed(small: Project) -> None:
    kept = {path: small.read(path) for path in ("params.yaml", "src/models/a.py")}

    def write(path: str, text: str) -> Callable[[], object]:
        return lambda: (small.folder / path).write_text(text)

    for path, text in {"params.yaml": PARAMS.replace("seed: 1", "seed: 2"), "src/models/a.py": "A = 2\n"}.items():
        status, [fault] = reproduced(small, ("import", write(path, text)), ("main", write(path, kept[path])))
        assert status != 0 and not (small.folder / "dvc.lock").exists()
        assert ("shared.seed" if path == "params.yaml" else path) in fault


@pytest.mark.parametrize("moment", ["import", "main"])
def test_a_stage_ends_with_the_dvc_that_started_it(small: Project, moment: str) -> None:
    process = small.start(sys.executable, "-m", "dvc", "repro", "slow@a")
    wait_for((small.folder / "import.reached").exists)
    if moment == "main":
        (small.folder / "import.passed").touch()
        wait_for((small.folder / "main.reached").exists)
    [stage] = [
        child for child in psutil.Process(process.pid).children(recursive=True) if "stages.slow" in child.cmdline()
    ]
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE)


def test_ctrl_c_while_a_stage_imports_ends_it_without_a_traceback(small: Project) -> None:
    command = [sys.executable, "-m", "stages.slow", "--model", "a", "--out", "out.txt"]
    process = small.start(*command)
    wait_for((small.folder / "import.reached").exists)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "") and process.returncode != 0


def test_a_stage_is_found_wherever_dvc_is_called(small: Project) -> None:
    for flag in ("import", "main"):
        (small.folder / f"{flag}.passed").touch()
    pipeline = small.folder / "aside/dvc.yaml"
    pipeline.parent.mkdir()
    pipeline.write_text("stages:\n  other:\n    wdir: ..\n    cmd: python -m stages.slow --model b --out out/other\n")
    for targets in (["../dvc.yaml:slow@a"], ["other"]):
        small.run("sh", "-c", f'cd aside && {sys.executable} -m dvc repro "$@"', "sh", *targets)
    assert (small.folder / "out/a.txt").exists() and (small.folder / "out/other").exists()
