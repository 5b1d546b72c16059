"""A network's weights on disk."""

from pathlib import Path

from torch import nn

from mnist_cnn.common.errors import InputError
from mnist_cnn.data.tensors import load_tensors, save_tensors


def save_weights(path: Path, network: nn.Module) -> None:
    """Store a network's weights and buffers. Equal ones give equal bytes."""
    save_tensors(path, network.state_dict())


def load_weights(path: Path, network: nn.Module) -> None:
    """Load weights and buffers into ``network``.

    Raises:
        InputError: the file is missing or damaged, or belongs to another architecture.
    """
    weights = load_tensors(path, restored_by="'dvc checkout' or 'dvc repro'")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        fault = " ".join(str(error).split())
        raise InputError(f"{path}: weights of another architecture ({fault})") from None
