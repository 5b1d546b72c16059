"""What surrounds the arithmetic: device, threads, memory allocator, determinism."""

import ctypes
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from mnist_cnn.engine import Compute
from mnist_cnn.errors import InputError
from mnist_cnn.params import Train


def prepare(train: Train) -> Compute:
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
    return Compute(device, train.engine, train.precision, threads)


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


def captured(
    step: Callable[..., Tensor], inputs: Sequence[Tensor], state: Callable[[], list[Tensor]]
) -> Callable[..., Tensor]:
    """A step as one launch of a CUDA graph; small networks otherwise spend most of their time on launching kernels.

    What is called takes tensors of the shapes of ``inputs``, and returns the step's result, which the next call
    overwrites. A step that waits for the device, and so cannot be captured, is returned as it is, with a warning.

    Args:
        step: of CUDA tensors, always the same operations.
        state: all tensors that a step changes. Those that the first step makes begin at zero.

    Source: "Accelerating PyTorch with CUDA Graphs", 2021,
    https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/
    """
    given = tuple(tensor.clone() for tensor in inputs)
    before = {tensor.data_ptr(): tensor.clone() for tensor in state()}
    random = torch.cuda.get_rng_state()
    # Libraries set themselves up in their first calls, which a graph must not hold. Whether the step waits is tried
    # beforehand, because a capture that fails leaves PyTorch's memory in disorder.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(*given)
        step(*given)
        fault = _fault_if_waiting(partial(step, *given))
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    if fault is None:
        try:
            with torch.cuda.graph(graph):
                result = step(*given)
        except RuntimeError as error:
            cause = str(error.__context__ or error).splitlines()[0]
            raise InputError(f"the network's steps cannot be captured as a CUDA graph: {cause}") from None
    for tensor in state():
        if tensor.data_ptr() in before:
            tensor.copy_(before[tensor.data_ptr()])
        else:
            tensor.zero_()
    torch.cuda.set_rng_state(random)
    if fault is not None:
        warnings.warn(f"the steps are not captured as a CUDA graph, and slower: {fault}", stacklevel=2)
        return step

    def replay(*inputs: Tensor) -> Tensor:
        for mine, theirs in zip(given, inputs, strict=True):
            mine.copy_(theirs)
        graph.replay()
        return result

    return replay


def _fault_if_waiting(work: Callable[[], object]) -> str | None:
    """What PyTorch says of work that waits for the CUDA device, in a line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a mode that it calls a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


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
