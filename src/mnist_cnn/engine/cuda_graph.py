"""A training step as one CUDA graph."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from mnist_cnn.common.errors import InputError


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
