"""Named tensors in a file that holds numbers only: no code can hide in it, and equal tensors give equal bytes.

Each tensor's digest is in the file's header, and checked when the tensor is read: a flipped bit is noticed.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import atomic_write

# One entry: safetensors writes several in an order of chance.
_DIGESTS = "sha256"


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Store tensors, whatever device they are on."""
    # Copies, because layers may share a weight, and the file's format has each tensor apart.
    stored = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    digests = {name: _digest(tensor) for name, tensor in stored.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(stored, {_DIGESTS: json.dumps(digests)}))


def load_tensors(path: Path, names: Collection[str] | None = None, *, restored_by: str) -> dict[str, Tensor]:
    """The named tensors of a file, or all, on the CPU.

    Args:
        restored_by: the command that makes the file again, for the message.

    Raises:
        InputError: the file is missing or damaged, or has no tensor of such a name.
    """
    try:
        with safe_open(path, "pt") as file:
            digests = json.loads((file.metadata() or {})[_DIGESTS])
            tensors = {name: file.get_tensor(name) for name in (digests if names is None else names)}
        if damaged := [name for name, tensor in tensors.items() if _digest(tensor) != digests[name]]:
            raise ValueError(f"{damaged[0]} is not what its digest is of")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        fault = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({fault}); {restored_by} restores it") from None
    return tensors


def _digest(tensor: Tensor) -> str:
    """64 hexadecimal digits for dtype, shape and values."""
    named = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    named.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return named.hexdigest()
