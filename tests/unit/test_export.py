"""The models as ONNX files: what another program makes of pixels is what this one makes of them."""

import getpass
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.sealed import read_sealed, write_sealed
from mnist_cnn.data.deskew import deskew
from mnist_cnn.data.images import STATISTICS, Images, save_images
from mnist_cnn.engine.checkpoint import save_weights
from mnist_cnn.engine.predictor import Predictions, Predictor
from mnist_cnn.export.model_file import OPSET, to_onnx
from mnist_cnn.export.runtime import Agreement, agreement, probabilities
from mnist_cnn.models import build
from stages import export as stage
from tests.helpers import NORMALISATION, ROOT, TORCH, bar, noise

# Digits that lean either way, one without any ink and one with ink in one row alone, and noise.
PIXELS = torch.cat([*(bar(lean / 5) for lean in range(-6, 7)), torch.zeros(2, 28, 28, dtype=torch.uint8)])
PIXELS[-1, 5] = 255
PIXELS = torch.cat([PIXELS, noise(20).pixels])


class Residual(nn.Module):
    """A way around a convolution that takes its channels apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 8, 3, padding=1), nn.GroupNorm(2, 8)

    def forward(self, input: Tensor) -> Tensor:
        gate, change = self.norm(self.conv(input)).split(4, dim=1)
        changed: Tensor = input + gate.sigmoid() * nn.functional.gelu(change)
        return changed


def residual() -> nn.Module:
    layers = nn.Conv2d(1, 4, 5, stride=2), Residual(), nn.Dropout(0.5), nn.MaxPool2d(2), Residual(), nn.AvgPool2d(2)
    return nn.Sequential(*layers, nn.Flatten(), nn.LayerNorm(36), nn.Linear(36, 10))


def model_7() -> nn.Module:
    """With statistics in its batch norms that are not those it begins with."""
    network = build("model_7")
    network(torch.randn(64, 1, 28, 28))
    return network


def exported(network: nn.Module, deskewed: bool, tta: bool) -> bytes:
    return to_onnx("network", network, NORMALISATION, {"model": "network"}, deskew=deskewed, tta=tta)


def predicted(network: nn.Module, deskewed: bool, tta: bool) -> Predictions:
    seen = Images(deskew(PIXELS) if deskewed else PIXELS, torch.zeros(len(PIXELS), dtype=torch.long))
    return Predictor(network, NORMALISATION, TORCH, tta=tta, batch_size=8)(seen)


@pytest.mark.parametrize(
    ("make", "deskewed", "tta"),
    [(residual, False, False), (residual, True, True), (model_7, True, False), (model_7, False, True)],
)
def test_a_file_gives_the_probabilities_of_the_predictor_whatever_the_batch(
    make: Callable[[], nn.Module], deskewed: bool, tta: bool
) -> None:
    torch.manual_seed(0)
    network = make()
    content, expected = exported(network, deskewed, tta), predicted(network, deskewed, tta)
    for size in (1, 7, len(PIXELS)):
        found = probabilities(content, PIXELS, size)
        torch.testing.assert_close(found, expected.logits.softmax(1), rtol=0, atol=2e-5)
        assert agreement(found, expected).different == 0
    # One pixel that is deskewed or sampled otherwise would show.
    other = predicted(network, not deskewed, tta), predicted(network, deskewed, not tta)
    assert all(agreement(found, each).largest_difference > 1e-4 for each in other)


def test_a_file_has_what_it_says_and_nothing_of_where_it_was_made() -> None:
    torch.manual_seed(0)
    network = model_7()
    network.train()
    content = exported(network, True, True)
    assert network.training
    assert exported(network, True, True) == content
    for trace in (str(ROOT), "site-packages", ".py", "mnist_cnn.", socket.gethostname(), f"/{getpass.getuser()}"):
        assert trace.encode() not in content, trace
    model = onnx.load_from_string(content)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"model": "network"}
    operators = [node.op_type for node in model.graph.node]
    # The network is there once, its batch norms in its convolutions; one sampling makes all views.
    assert operators.count("Conv") == sum(isinstance(layer, nn.Conv2d) for layer in network.modules())
    assert operators.count("GridSample") == 1
    assert not {"BatchNormalization", "Dropout", "Identity"} & set(operators)
    ends = [(end.name, end.type.tensor_type) for end in (*model.graph.input, *model.graph.output)]
    assert [(name, kind.elem_type, [d.dim_param or d.dim_value for d in kind.shape.dim]) for name, kind in ends] == [
        ("pixels", onnx.TensorProto.UINT8, ["images", 28, 28]),
        ("probabilities", onnx.TensorProto.FLOAT, ["images", 10]),
    ]


def test_a_network_that_cannot_be_exported_is_refused_in_a_line() -> None:
    class Choosing(nn.Module):
        def forward(self, input: Tensor) -> Tensor:
            return input.flatten(1)[:, :10] if input.sum() > 0 else input.flatten(1)[:, 10:20]

    with pytest.raises(InputError, match="^network: PyTorch cannot export the network: [^\n]+$"):
        exported(Choosing(), False, False)


def test_an_agreement_counts_other_classes_and_rounds_the_difference_up() -> None:
    found = torch.eye(10)
    expected = Predictions(found.clone().log().clamp(min=-9), torch.zeros(10, dtype=torch.long))
    assert agreement(found, expected) == Agreement(10, 0, 0.01)
    expected.logits[3] = expected.logits[4]
    assert agreement(found, expected) == Agreement(10, 1, 1.0)
    exact = found.log()
    assert agreement(found, Predictions(exact, expected.labels)) == Agreement(10, 0, 0.0)


@pytest.fixture
def run_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """Runs the stage on a few images and fresh weights; returns what it wrote of the file."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr("mnist_cnn.engine.device.keep_freed_memory", lambda: None)
    save_images(tmp_path / "test.safetensors", Images(PIXELS, torch.arange(len(PIXELS)) % 10))
    write_sealed(tmp_path / STATISTICS, NORMALISATION._asdict())
    torch.manual_seed(0)
    save_weights(tmp_path / "weights", build("model_6"))
    write_sealed(tmp_path / "record", {"metrics": {"parameters": 7918, "val_accuracy": 99.4}})

    def ran() -> dict[str, Any]:
        files = {name: tmp_path / name for name in ("weights", "record", "exported", "facts")}
        stage.main(ROOT / "params.yaml", "model_6", tmp_path, **files)
        numbers: dict[str, Any] = read_sealed(tmp_path / "facts", "")
        return numbers

    return ran


def test_the_stage_compares_all_test_images_and_says_what_the_file_is(
    run_stage: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    numbers = run_stage()
    content = (tmp_path / "exported").read_bytes()
    assert numbers.pop("largest_difference") < 1e-3
    assert numbers == {"opset": OPSET, "bytes": len(content), "images": len(PIXELS), "different": 0}
    facts = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    assert facts["model"] == "model_6" and facts["parameters"] == "7918" and "99.4" in facts["validation_accuracy"]
    run_stage()
    assert (tmp_path / "exported").read_bytes() == content


def test_a_file_that_gives_another_class_fails_the_stage_in_a_line_and_is_not_written(
    run_stage: Callable[[], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "to_onnx", lambda *_, **__: b"")
    monkeypatch.setattr(stage, "probabilities", lambda _, pixels, size: torch.eye(10)[torch.arange(len(pixels)) % 10])
    with pytest.raises(InputError, match=f"^model_6: [^\n]* of {len(PIXELS)} images [^\n]*$"):
        run_stage()
    assert not (tmp_path / "exported").exists() and not (tmp_path / "facts").exists()
