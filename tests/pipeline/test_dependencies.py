"""DVC follows no imports: what dvc.yaml lists by hand must be what each stage uses."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_cnn.settings.params import Study

ROOT = Path(__file__).parents[2]
DEFINITIONS: dict[str, dict[str, Any]] = {
    name: found.get("do", found)
    for file in ("dvc.yaml", "study/dvc.yaml")
    for name, found in yaml.safe_load((ROOT / file).read_text())["stages"].items()
}
STAGES = sorted(DEFINITIONS)


def definition(stage: str) -> dict[str, Any]:
    return DEFINITIONS[stage]


def files(dependency: str) -> set[str]:
    """The modules that a dependency stands for; a folder for all in it that hold more than a docstring."""
    path = ROOT / dependency
    return {file.relative_to(ROOT).as_posix() for file in path.rglob("*.py")} if path.is_dir() else {dependency}


def imported(path: Path) -> set[str]:
    """Names of the modules that a file names in its imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def loaded_files(stage: str, builds: bool, every: bool) -> set[str]:
    """The project's files that a stage loads when it runs, those left out that hold a docstring alone."""
    program = f"""
import sys, stages.{stage}
if {builds}:
    from mnist_cnn.models import MODELS, build
    [build(name) for name in (MODELS if {every} else ["model_1"])]
print(*(module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)), sep="\\n")
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    files = {Path(line) for line in ended.stdout.splitlines()}
    ours = {file.relative_to(ROOT) for file in files if file.is_relative_to(ROOT)}
    return {file.as_posix() for file in ours if file.parts[0] in ("src", "stages") and not is_docstring_alone(file)}


def is_docstring_alone(path: Path) -> bool:
    return all(isinstance(node, ast.Expr) for node in ast.parse((ROOT / path).read_text()).body)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_every_module_it_loads_and_no_other(stage: str) -> None:
    builds = "build(" in (ROOT / "stages" / f"{stage}.py").read_text()
    deps = [path.replace("${key}", "model_1") for path in definition(stage)["deps"]]
    code = [path for path in deps if path.startswith(("src/", "stages/")) and not path.endswith(".c")]
    loaded = loaded_files(stage, builds, "src/mnist_cnn/models" in deps)
    assert loaded <= {file for path in code for file in files(path)}
    # Of a folder, on which a stage depends as a whole, it may need some.
    assert not [path for path in code if not files(path) & loaded]


def test_what_python_leaves_in_a_folder_makes_no_stage_stale() -> None:
    folders = {path for name in STAGES for path in definition(name)["deps"] if (ROOT / path).is_dir()}
    code = sorted(folder for folder in folders if folder.startswith("src/"))
    assert "src/mnist_cnn/layers" in code
    left = [f"{folder}/{name}" for folder in code for name in ("__pycache__/blocks.cpython-311.pyc", "blocks.pyc")]
    command = [sys.executable, "-m", "dvc", "check-ignore", *left, *(f"{folder}/blocks.py" for folder in code)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == left


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_compiles_the_kernels_lists_their_source(stage: str) -> None:
    deps = set(definition(stage)["deps"])
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*.c")}
    assert sources
    assert (deps >= sources) == ("src/mnist_cnn/native/build.py" in deps)


def test_of_a_recipe_a_measurement_depends_on_what_says_how_images_are_seen_and_on_the_epochs() -> None:
    names = {name for name in definition("evaluate")["params"] if name.startswith("models.")}
    assert names == {f"models.${{key}}.{setting}" for setting in ("deskew", "epochs", "views")}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_every_setting_it_reads_and_no_other(stage: str) -> None:
    declared = {name.split(".")[0] for name in definition(stage).get("params", []) if isinstance(name, str)}
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text())
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Name) and node.value.id == "settings")
            or (isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "load")
        )
    }
    if stage == "split":  # keeps its section alone, under the name of all
        read = {"split"}
    if stage == "report":  # hands all settings on to the library
        library = (ROOT / "src/mnist_cnn/report.py").read_text() + (ROOT / "src/mnist_cnn/plotting.py").read_text()
        read |= {name for name in ("report", "targets") if f"params.{name}" in library}
    if "plan" in read_names(tree):  # which trials there are follows from the recipes and the first seed
        read |= {"models", "train"}
    if "accuracy_over_seeds" in read_names(tree):
        read |= {"report", "targets"}
    assert declared == read
    if "load_study" in read_names(tree):
        [of_study] = [item for item in definition(stage)["params"] if isinstance(item, dict)]
        assert of_study == {"study/params.yaml": list(Study.model_fields)}


def read_names(tree: ast.AST) -> set[str]:
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return named | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_each_stage_has_a_module_and_a_description() -> None:
    for stage in STAGES:
        assert definition(stage)["desc"]
        assert (ROOT / "stages" / f"{stage}.py").is_file()
        assert definition(stage)["cmd"].startswith(f"python -m stages.{stage} ")


def test_paths_are_written_in_dvc_yaml_alone() -> None:
    folders = ("data/", "checkpoints/", "metrics/", "plots/", "params.yaml")
    for path in [*(ROOT / "stages").glob("*.py"), *(ROOT / "src").rglob("*.py")]:
        strings = [
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value
        ]
        assert not [text for text in strings if text.startswith(folders)], path


def test_stages_import_neither_each_other_nor_dvc() -> None:
    for path in (ROOT / "stages").glob("*.py"):
        assert not {name for name in imported(path) if name.split(".")[0] == "dvc"}
        assert {name for name in imported(path) if name.startswith("stages.")} <= {"stages.cli"}


def test_the_library_knows_neither_dvc_nor_the_stages_nor_a_command_line() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & {"dvc", "stages", "argparse"}
