"""DVC follows no imports: what dvc.yaml lists by hand must be what each stage uses."""

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from mnist_cnn.study.settings import Study
from tests.helpers import ROOT

DEFINITIONS: dict[str, dict[str, Any]] = {
    name: found.get("do", found)
    for file in ("dvc.yaml", "study/dvc.yaml")
    for name, found in yaml.safe_load((ROOT / file).read_text())["stages"].items()
}
STAGES = sorted(DEFINITIONS)
MODEL = "mnist_cnn.models.model_1"
# What it has is for programs that ask the package itself for something.
IDLE = ("src/mnist_cnn/__init__.py",)


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("stages", "mnist_cnn", exclude_type_checking_imports=True, cache_dir=None)


def files_of(dependency: str) -> set[str]:
    """The modules that a dependency stands for: itself, or all of a folder."""
    path = ROOT / dependency
    return {file.relative_to(ROOT).as_posix() for file in path.rglob("*.py")} if path.is_dir() else {dependency}


def file_of(module: str) -> Path:
    place = ROOT / ("" if module.startswith("stages") else "src") / module.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def used(stage: str) -> set[str]:
    """The files that a stage imports, by whatever way, and the packages they lie in; ``build`` imports a model."""
    modules = {f"stages.{stage}"} | graph().find_upstream_modules(f"stages.{stage}")
    if "mnist_cnn.models._sources" in modules:  # only ``build`` uses it
        if "build(" in (ROOT / f"stages/{stage}.py").read_text() or stage == "study":
            modules |= {MODEL} | graph().find_upstream_modules(MODEL)
        else:
            # Names of the models, which all settings know of, are had without building any.
            modules -= {"mnist_cnn.models._sources", "mnist_cnn.layers"} - direct(modules)
    packages = {module.rpartition(".")[0] for module in modules} - {""}
    names = {file_of(module).relative_to(ROOT).as_posix() for module in modules | packages}
    return {name for name in names if name not in IDLE and not is_docstring_alone(ROOT / name)}


def direct(modules: set[str]) -> set[str]:
    """Those that something else than the package of models imports."""
    others = modules - {"mnist_cnn.models"}
    return {found for module in others for found in graph().find_modules_directly_imported_by(module)}


def is_docstring_alone(path: Path) -> bool:
    return all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_every_module_it_uses_and_no_other(stage: str) -> None:
    deps = [path.replace("${key}", "model_1") for path in DEFINITIONS[stage]["deps"]]
    code = [path for path in deps if path.startswith(("src/", "stages/"))]
    assert used(stage) <= {file for path in code for file in files_of(path)}
    # Of a folder, on which a stage depends as a whole, it may need some.
    unused = [path for path in code if not files_of(path) & used(stage)]
    assert [path for path in unused if not (path.endswith("__init__.py") and is_docstring_alone(ROOT / path))] == []


def test_what_python_leaves_in_a_folder_makes_no_stage_stale() -> None:
    folders = {path for name in STAGES for path in DEFINITIONS[name]["deps"] if (ROOT / path).is_dir()}
    code = sorted(folder for folder in folders if folder.startswith("src/"))
    assert "src/mnist_cnn/layers" in code
    left = [f"{folder}/{name}" for folder in code for name in ("__pycache__/blocks.cpython-311.pyc", "blocks.pyc")]
    command = [sys.executable, "-m", "dvc", "check-ignore", *left, *(f"{folder}/blocks.py" for folder in code)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == left


def test_of_a_recipe_a_measurement_depends_on_what_it_reads() -> None:
    names = {name for name in DEFINITIONS["evaluate"]["params"] if name.startswith("models.")}
    assert names == {f"models.${{key}}.{setting}" for setting in ("deskew", "epochs", "tta")}


# What stages read of the settings by way of the library.
BY_LIBRARY = {
    "test": {"data", "split"},
    "export": {"split"},
    "report": {"split"},
    "study": {"models", "train"},
    "study_report": {"models", "train"},
}


# What else than a section of its name is read by a method or property of the settings.
BY_METHOD = {
    "recipe": {"models"},
    "data_set": {"data", "custom"},
    "split": {"data", "split"},
    "targets": {"data", "targets"},
}


# The first stage follows from the file as a whole.
@pytest.mark.parametrize("stage", [name for name in STAGES if name != "settings"])
def test_a_stage_declares_every_setting_it_reads_and_no_other(stage: str) -> None:
    names = [name for name in DEFINITIONS[stage].get("params", []) if isinstance(name, str)]
    declared = {name.split(".")[0] for name in names}
    read = set(BY_LIBRARY.get(stage, ()))
    for node in ast.walk(ast.parse((ROOT / f"stages/{stage}.py").read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "settings":
            read |= BY_METHOD.get(node.attr, {node.attr})
    assert declared == read
    # Of the data sets, the one that is chosen.
    by_set = {name for name in names if name.split(".")[0] in ("split", "targets")}
    assert by_set <= {"split.${data}", "targets.${data}"} and (not by_set or "data" in names)
    of_study = [item for item in DEFINITIONS[stage].get("params", []) if isinstance(item, dict)]
    assert of_study == ([{"study/params.yaml": list(Study.model_fields)}] if stage.startswith("study") else [])


def test_packages_import_downwards_only() -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
