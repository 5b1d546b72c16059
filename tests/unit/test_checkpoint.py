"""Weights on disk: the same again, or refused by the file's name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from mnist_cnn.common.errors import InputError
from mnist_cnn.engine.checkpoint import load_weights, save_weights
from mnist_cnn.models import build


def model_5(seed: int = 0) -> nn.Module:
    """A network whose weights and statistics are all its own."""
    torch.manual_seed(seed)
    network = build("model_5")
    network(torch.randn(4, 1, 28, 28))
    return network


def test_weights_and_statistics_come_back_as_they_were_stored(tmp_path: Path) -> None:
    stored, loaded, path = model_5(0), model_5(1), tmp_path / "new folder/model_5.safetensors"
    save_weights(path, stored)
    load_weights(path, loaded)
    assert loaded.state_dict().keys() == stored.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, stored.state_dict()[name])
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(loaded.eval()(images), stored.eval()(images))


def test_equal_weights_give_equal_bytes_whatever_their_layout(tmp_path: Path) -> None:
    strided = model_5().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for name, network in {"a": model_5(), "b": model_5(), "c": strided, "d": model_5(seed=1)}.items():
        save_weights(tmp_path / name, network)
    a, b, c, d = ((tmp_path / name).read_bytes() for name in "abcd")
    assert a == b == c
    assert a != d


# Nothing, part of the header, all but the last byte.
@pytest.mark.parametrize("bytes_left", [None, 0, 60, -1])
def test_missing_and_damaged_files_are_named(tmp_path: Path, bytes_left: int | None) -> None:
    path, network = tmp_path / "model_5.safetensors", model_5()
    save_weights(path, network)
    content = path.read_bytes()
    path.unlink()
    if bytes_left is not None:
        path.write_bytes(content[:bytes_left])
    with pytest.raises(InputError) as error:
        load_weights(path, network)
    assert str(error.value).startswith(f"{path}: ")
    assert "'dvc repro'" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def linear_layers(count: int) -> nn.Module:
    return nn.Sequential(*[nn.Linear(2, 2) for _ in range(count)])


@pytest.mark.parametrize(
    ("stored", "network"),
    [
        (lambda: build("model_1"), model_5),
        (lambda: linear_layers(1), lambda: linear_layers(2)),
        (lambda: linear_layers(3), lambda: linear_layers(2)),
    ],
    ids=["another model", "too few layers", "too many layers"],
)
def test_weights_of_another_architecture_are_refused_in_one_line(
    tmp_path: Path, stored: Callable[[], nn.Module], network: Callable[[], nn.Module]
) -> None:
    path = tmp_path / "other.safetensors"
    save_weights(path, stored())
    with pytest.raises(InputError) as error:
        load_weights(path, network())
    assert str(error.value).startswith(f"{path}: weights of another architecture")
    assert len(str(error.value).splitlines()) == 1


def test_a_file_is_left_whole_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model_5.safetensors"
    save_weights(path, model_5())
    before = path.read_bytes()

    def fail_half_way(target: Path, content: bytes) -> None:
        with target.open("wb") as file:
            file.write(content[:100])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail_half_way)
    with pytest.raises(OSError, match="disk full"):
        save_weights(path, model_5(seed=1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    path, loaded = tmp_path / "model_5.safetensors", model_5(2)
    save_weights(path, model_5(0))
    save_weights(path, model_5(1))
    load_weights(path, loaded)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model_5(1).state_dict().items())
    assert list(tmp_path.iterdir()) == [path]
