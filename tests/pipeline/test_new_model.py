"""A model is added as the README says: it trains out of the box, is in all results, and leaves the project whole."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.pipeline.small_project import MODELS, Project, copy_repository, stages_of, stages_run

NAME = "residual"
# Any name will do: one that comes before the story's models by the alphabet, and the usual numbers, after a gap.
NAMES = (NAME, "another", "model_9", "model_10")
MODEL = '''"""A residual network with what the kernels do not know."""

from torch import nn

from mnist_cnn.layers.blocks import Residual


def network() -> nn.Module:
    """``(N, 1, 28, 28)`` float images to ``(N, 10)`` logits."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8), nn.GELU(),
        Residual(8), nn.MaxPool2d(2), Residual(8),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
'''
HELPER = '''"""Blocks of residual networks."""

from torch import Tensor, nn


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """As the input, ``(N, C, H, W)``."""
        change: Tensor = self.second(nn.functional.silu(self.first(input)))
        return input + change
'''
IMPORTS = "from torch import Tensor, nn\n\n\n"
# Those that look at the models.
TESTS = (
    *(f"tests/unit/test_{name}.py" for name in ("models",)),
    "tests/unit/test_dependencies.py::test_a_stage_lists_every_module_it_uses_and_no_other",
    "tests/docs/test_charts.py",
)


def add_model(project: Project, name: str = NAME, helper: bool = False) -> None:
    """As the README says: a file, an entry in params.yaml, and, if it has one, a helper in its place."""
    model = MODEL
    if helper:
        (project.folder / "src/mnist_cnn/layers/blocks.py").write_text(HELPER)
    else:  # all in the model's own file
        block = HELPER[HELPER.index("class Residual") :]
        model = model.replace("from torch import nn\n\nfrom mnist_cnn.layers.blocks import Residual\n", IMPORTS + block)
    (project.folder / f"src/mnist_cnn/models/{name}.py").write_text(model)
    params = project.read("params.yaml")
    [entry] = re.findall(r"^  model_5:\n(?:    .*\n)+", params, re.MULTILINE)
    written = params.replace(entry, entry + entry.replace("model_5", name))
    (project.folder / "params.yaml").write_text(written)


def test_a_model_of_other_layers_trains_out_of_the_box_and_is_in_all_results(project: Project) -> None:
    before = {name: project.read(f"metrics/{name}.json") for name in MODELS}
    pictures = {file.name for file in (project.folder / "plots/pictures").iterdir()}
    add_model(project)
    ran = project.dvc("repro").stdout
    output = stages_run(ran)
    assert output == ["settings", *stages_of(NAME), "report"]
    [engine] = [line for line in ran.splitlines() if line.startswith("[INFO] Engine: PyTorch")]
    assert "GroupNorm" in engine
    # Nobody has declared a look at it.
    assert json.loads(project.read(f"metrics/test/{NAME}.json")) == {}
    # The others are as they were.
    assert before == {name: project.read(f"metrics/{name}.json") for name in before}
    table = pd.read_csv(project.folder / "metrics/comparison.csv").set_index("model")
    assert table["engine"].to_dict() == {**dict.fromkeys(before, "native"), NAME: "torch"}
    assert table["test_accuracy"].isna().to_dict() == {**dict.fromkeys(before, False), NAME: True}
    assert f"**{NAME}**" in project.read("metrics/comparison.md")
    assert NAME in set(pd.read_csv(project.folder / "plots/curves.csv")["model"])
    assert {file.name for file in (project.folder / "plots/pictures").iterdir()} == pictures
    assert project.repro() == []


def test_a_change_in_a_helper_is_seen(stubbed: Project) -> None:
    add_model(stubbed, helper=True)
    stubbed.repro()
    helper = stubbed.folder / "src/mnist_cnn/layers/blocks.py"
    helper.write_text(HELPER.replace("silu", "gelu"))
    assert f"train@{NAME}" in json.loads(stubbed.dvc("status", "--json").stdout)


def test_kernels_asked_for_by_name_refuse_it_with_the_way_out(project: Project) -> None:
    add_model(project)
    project.edit_params(lambda params: params["train"].update(engine="native"))
    command = ["-m", "stages.train", "--params", "params.yaml", "--model", NAME, "--splits", "data/split"]
    ended = project.run("python", *command, "--weights", "w.safetensors", "--history", "h.csv", check=False)
    assert ended.returncode != 0
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: ") and NAME in line and "GroupNorm" in line and "auto" in line
    assert not (project.folder / "w.safetensors").exists()


@pytest.fixture
def clone(tmp_path: Path) -> Project:
    """All files of this repository, as they are now."""
    copy_repository(tmp_path / "clone", lambda name: True)
    return Project(tmp_path / "clone", tmp_path)


def test_the_projects_own_tests_pass_with_several(clone: Project) -> None:
    for name in NAMES:
        add_model(clone, name, helper=True)
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *TESTS]
    ended = subprocess.run(command, cwd=clone.folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
