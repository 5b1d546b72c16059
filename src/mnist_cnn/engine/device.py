"""The process around the arithmetic: device, threads, memory allocator, determinism."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mnist_cnn.common.errors import InputError
from mnist_cnn.engine.execution import ExecutionConfig
from mnist_cnn.settings.params import Train


def prepare(train: Train) -> ExecutionConfig:
    """Make this process compute deterministically, with its memory kept; call once, before the first large tensor.

    PyTorch is held to one thread, because it splits its sums among threads and would round differently on another
    machine. The native engine gets the number that PyTorch would have used: ``OMP_NUM_THREADS``, or all cores.

    Raises:
        InputError: the machine does not have the device.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory that it has not written; to fill all of it beforehand takes up to a twentieth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # cuBLAS computes deterministically only with a workspace of fixed size; it must be set before first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    keep_freed_memory()
    device = resolve_device(train.device)
    if device.type == "cuda":
        # float32 means it: without this, convolutions round their inputs to ten bits.
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    return ExecutionConfig(device, train.engine, train.precision, threads)


@contextmanager
def enough_memory(batch_size: int) -> Iterator[None]:
    """Turn the end of memory in the block, whichever way it is told, into an InputError that names the batch size."""
    try:
        yield
    # PyTorch's allocator for the CPU raises a bare RuntimeError.
    except (MemoryError, RuntimeError) as error:
        words = str(error).lower()
        told = isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in words
        if not told and "can't allocate memory" not in words:
            raise
        raise InputError(f"out of memory: batch_size {batch_size:,} is too much for this machine") from None


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step instead of giving it back to the kernel.

    By default every large activation is mapped, faulted in page by page and unmapped again at each step,
    which takes up to 40 % of a training step here. Does nothing where the C library is another.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    # From malloc.h, in order: M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD.
    for option, value in ((-4, 0), (-1, (1 << 31) - 1), (-2, 512 << 20)):
        mallopt(option, value)


def resolve_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is cuda where there is one, else mps, else cpu.

    Raises:
        InputError: the machine has no such device.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    present = [device for device, there in available.items() if there]
    if name == "auto":
        name = present[0]
    if name not in present:
        raise InputError(f"train.device: {name!r} is not available on this machine; available: {', '.join(present)}")
    return torch.device(name)
