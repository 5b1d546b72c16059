"""A model is built from code that its stages depend on; anything else is refused in a line."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from mnist_cnn import models
from mnist_cnn.common.errors import InputError
from mnist_cnn.models import build
from tests.helpers import ROOT

HEAD = "from torch import nn\n"
NETWORK = "def network():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], str]:
    """Makes a model of some code, outside of the package's own folder."""

    def write(code: str) -> str:
        name = "a_models_name"
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
        monkeypatch.setattr(models, "MODELS", (*models.MODELS, name))
        monkeypatch.delitem(sys.modules, f"mnist_cnn.models.{name}", raising=False)
        return name

    return write


@pytest.mark.parametrize(
    ("imports", "named"),
    [
        ("from mnist_cnn.models.model_7 import network", "mnist_cnn.models.model_7"),
        ("from mnist_cnn.models import model_7", "mnist_cnn.models.model_7"),
        ("from . import model_7", "mnist_cnn.models.model_7"),
        ("from .model_7 import network", "mnist_cnn.models.model_7"),
        ("import mnist_cnn.data.deskew as d", "mnist_cnn.data.deskew"),
        ("from mnist_cnn.models import build", "mnist_cnn.models"),
        ("import benchmark.classical", "benchmark"),
        ("def late():\n    import benchmark", "benchmark"),
        ("if False:\n    from mnist_cnn import data", "mnist_cnn.data"),
    ],
)
def test_code_that_no_stage_depends_on_is_refused_by_name(
    written: Callable[..., str], imports: str, named: str
) -> None:
    name = written(f"{HEAD}{imports}\n{NETWORK}")
    with pytest.raises(InputError) as error:
        build(name)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert name in message and named in message and "mnist_cnn/layers" in message


def test_layers_libraries_and_pythons_own_modules_may_be_imported(written: Callable[..., str]) -> None:
    free = "import math, torch.nn.functional as F\nimport mnist_cnn.layers\nfrom mnist_cnn.layers import conv3\n"
    assert build(written(HEAD + free + NETWORK))(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_modules_in_layers_may_be_imported_and_what_they_import_is_checked(tmp_path: Path) -> None:
    package = tmp_path / "src/mnist_cnn"
    shutil.copytree(ROOT / "src/mnist_cnn", package, ignore=shutil.ignore_patterns("__pycache__", "native"))
    (package / "layers/good.py").write_text("from . import deeper\nfrom mnist_cnn.layers.deeper import math\n")
    (package / "layers/deeper.py").write_text("import math\n")
    (package / "layers/bad.py").write_text("from ..data.deskew import deskew\nfrom mnist_cnn import settings\n")
    program = """
from pathlib import Path
from mnist_cnn.models._sources import not_followed
for name in ("good", "bad"):
    Path("model.py").write_text(f"from mnist_cnn.layers import {name}, conv3")
    print(*not_followed(Path("model.py"), "mnist_cnn.models"))
"""
    environment = os.environ | {"PYTHONPATH": "src"}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert ended.stdout == "\nmnist_cnn.data mnist_cnn.data.deskew mnist_cnn.settings\n"


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("", "no function network"),
        ("def network(:", "line 2: invalid syntax"),
        ("network = 3", "no function network"),
        ("def network():\n    return 3", "returns int"),
        ("def network():\n    return nn.Linear(10, 10)", "does not take images"),
        ("def network():\n    return nn.Conv2d(1, 10, 28)", r"torch.float32 \(2, 10, 1, 1\)"),
        ("def network():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 9))", r"\(2, 9\)"),
        ("def network():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).double()", "does not take images"),
        ("class N(nn.Module):\n    def forward(self, x):\n        return [x]\nnetwork = N", "returns list"),
    ],
)
def test_what_is_no_network_from_images_to_logits_is_refused_in_a_line(
    written: Callable[..., str], code: str, named: str
) -> None:
    name = written(HEAD + code)
    with pytest.raises(InputError, match=f"{name}.*{named}") as error:
        build(name)
    assert len(str(error.value).splitlines()) == 1


def test_building_leaves_statistics_and_random_numbers_alone(written: Callable[..., str]) -> None:
    layers = "nn.BatchNorm2d(1), nn.Dropout(), nn.Flatten(), nn.Linear(784, 10)"
    name = written(f"{HEAD}def network():\n    return nn.Sequential({layers})\n")
    torch.manual_seed(1)
    network = build(name)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    nn.Linear(784, 10)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training and network.get_buffer("0.num_batches_tracked") == 0
