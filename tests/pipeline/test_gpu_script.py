"""The script for a machine with a GPU, on the CPU and small data: all but what the device itself makes of it."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT
from tests.pipeline.small_project import Project

# What such a machine has, of all that the environment here has; the standard library goes without saying.
THERE = (
    "annotated_types dateutil filelock fsspec hypothesis iniconfig jinja2 markupsafe mpmath networkx numpy packaging "
    "pandas pathspec pluggy psutil py pydantic pydantic_core pygments pytest ruamel safetensors scipy six "
    "sortedcontainers sympy torch torchgen torchinfo tqdm triton typing_extensions typing_inspection"
).split()
BARE = f"""
import sys
from importlib.machinery import PathFinder

OWN = ("benchmark", "stages", "tools", "mnist_cnn", "tests", "conftest", "test_device")


class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        there = top in sys.stdlib_module_names or top in OWN or top in {THERE!r} or top.startswith("_")
        return super().find_spec(name, path, target) if there else None


sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture
def bare(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A small project that has what the packing gives, in Pythons that find nothing that a bare machine lacks."""
    hooks, out, packed = tmp_path / "hooks", tmp_path / "out", project.folder / ".gpu"
    for folder in (hooks, out, packed / "wheels"):
        folder.mkdir(parents=True)
    (packed / ".gitignore").write_text("*\n")
    (hooks / "sitecustomize.py").write_text(BARE)
    with tarfile.open(packed / "split.tar.gz", "w:gz") as archive:
        archive.add(project.folder / "data/split", "split")
    # Stands for pip, whose packages are in the environment anyway.
    pip = hooks / "python"
    pip.write_text(f'#!/bin/sh\ncase "$*" in *"pip install"*) exit 0 ;; esac\nexec {sys.executable} "$@"\n')
    pip.chmod(0o755)
    (project.folder / "tests/unit").mkdir(parents=True)
    (project.folder / "tests/helpers.py").write_text((ROOT / "tests/helpers.py").read_text())
    (project.folder / "tests/unit/test_device.py").write_text("def test_device(request): assert request.config")
    (project.folder / "tests/conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    for name, value in {
        "PYTHON": str(pip), "PYTHONPATH": str(hooks), "OUT": str(out), "OMP_NUM_THREADS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    with_models(project, "model_5")
    return project


def with_models(project: Project, *names: str) -> None:
    def change(params: dict[str, Any]) -> None:
        recipe = next(iter(params["models"].values()))
        params["models"] = {name: params["models"].get(name, recipe | {"dropout": 0.0}) for name in names}
        params["model"] = names[0]
        # The device's engine, which needs no compiler.
        params["train"]["engine"] = "torch"

    project.edit_params(change)


def run(project: Project, *options: str) -> subprocess.CompletedProcess[str]:
    return project.run("benchmark/gpu.sh", "--device", "cpu", *options, check=False)


def test_every_part_is_measured_and_reported(bare: Project) -> None:
    ended = run(bare)
    report = bare.read("metrics/benchmark_gpu.md")
    assert ended.returncode == 0, ended.stdout + ended.stderr + report
    assert "**Failed" not in report and "PyTorch " in report.splitlines()[2]
    assert "`tests/unit/test_device.py`: 1 passed in " in report
    assert "\n| model_5 | " in report
    assert "| fresh process | not reached | – | " in report and "The second run gave the same." in report
    assert "\n| A step | " in report and "\n- as it is, 10 steps: Most time takes: `" in report
    assert (Path(os.environ["OUT"]) / "benchmark_gpu.md").read_text() == report
    assert bare.run("git", "status", "--porcelain", "--", "metrics", ".gpu").stdout.split() == [
        "??", "metrics/benchmark_gpu.md",
    ]  # fmt: skip


def test_what_fails_is_named_and_the_rest_goes_on(bare: Project) -> None:
    # There is no model_5 to reach the target with.
    with_models(bare, "model_1")
    (bare.folder / "metrics/model_1.json").unlink()
    (bare.folder / "tests/unit/test_device.py").write_text("def test_device(): assert not 'right'")
    ended = run(bare)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "error: failed: Tests, The models by their recipes, The way to the target, What limits a step"
    )
    report = bare.read("metrics/benchmark_gpu.md")
    assert (
        "## Tests\n\n**Failed: 1 failed in " in report and "- FAILED tests/unit/test_device.py::test_device" in report
    )
    assert "**Failed: model_1: see the table**" in report and "| model_1 | failed: " in report
    assert report.count("of model_5 failed: KeyError: 'model_5'**") == 2


def test_parts_without_time_left_say_so_and_the_report_is_whole(bare: Project) -> None:
    ended = run(bare, "--seconds", "0")
    assert ended.returncode == 1
    report = bare.read("metrics/benchmark_gpu.md")
    assert report.count("**Failed: ") == 4
    assert "no time was left" in report and "not ready after 1 s" in report


def test_what_is_missing_is_named(bare: Project) -> None:
    absent = bare.run("benchmark/gpu.sh", "--device", "cuda", check=False)
    assert absent.returncode == 1 and "'cuda' is not available on this machine" in absent.stderr
    shutil.rmtree(bare.folder / ".gpu")
    assert "'benchmark/gpu.sh pack' makes it" in run(bare).stderr
