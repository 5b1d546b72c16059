"""Weights in a file that holds numbers only: no code can hide in it, and equal weights give equal bytes."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import atomic_write


def save_weights(path: Path, network: nn.Module) -> None:
    """Store a network's weights and buffers."""
    with atomic_write(path) as temporary:
        # Copies, because layers may share a weight, and the file's format has each tensor apart.
        save_file({name: tensor.cpu().clone().contiguous() for name, tensor in network.state_dict().items()}, temporary)


def load_weights(path: Path, network: nn.Module) -> None:
    """Load weights and buffers into ``network``.

    Raises:
        InputError: the file is missing or damaged, or belongs to another architecture.
    """
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}); 'dvc checkout' or 'dvc repro' restores it") from None
    except RuntimeError as error:
        fault = " ".join(str(error).split())
        raise InputError(f"{path}: weights of another architecture ({fault})") from None
