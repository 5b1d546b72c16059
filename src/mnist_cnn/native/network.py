"""A network laid out in memory for kernels.c, and its forward and backward pass as one differentiable call.

Every buffer is made once: a training step allocates nothing of size.
"""

import ctypes
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from mnist_cnn.native.build import load

LANES = 16
_MAX_POOL, _AVERAGE_POOL = 1, 2
_CHANNEL_ROWS = 6
# Three weights of a kernel's row become six numbers.
_PACKED_GROWTH = 2


class _Block(ctypes.Structure):
    """``Block`` of kernels.c, field by field.

    The convolution's result is ``height`` by ``width``, the block's is ``z_height`` by ``z_width``. Around ``x``
    and ``z`` lie the zeros that the convolution reading them wants, around ``dy`` those that its gradient wants.
    A block's ``x`` and ``dx`` are ``z`` and ``dz`` of the block before; the first has no ``dx``.
    """

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("inputs", "outputs", "kernel", "padding", "height", "width", "sections")),
        *((name, ctypes.c_int32) for name in ("norm", "relu", "pool")),
        *((name, ctypes.c_int32) for name in ("z_height", "z_width", "z_padding", "dy_padding")),
        ("drop_below", ctypes.c_uint32),
        *((name, ctypes.c_float) for name in ("keep_scale", "epsilon", "momentum")),
        ("key", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "gamma", "beta", "running_mean", "running_var")),
        *((name, ctypes.c_void_p) for name in ("x", "y", "z", "dz", "dy", "dx")),
        *((name, ctypes.c_void_p) for name in ("dweight", "dbias", "dgamma", "dbeta", "packed", "channel", "sums")),
    )


class _Barrier(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int32) for name in ("arrived", "phase", "abandoned"))


@dataclass
class Layers:
    """The modules of one block: a convolution and what follows it, in this order."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None = None
    dropout: nn.Dropout | None = None
    relu: nn.ReLU | None = None
    pool: nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d | None = None


_PLACES: dict[type[nn.Module], str] = {
    nn.BatchNorm2d: "norm",
    nn.Dropout: "dropout",
    nn.ReLU: "relu",
    nn.MaxPool2d: "pool",
    nn.AvgPool2d: "pool",
    nn.AdaptiveAvgPool2d: "pool",
}


def group_layers(network: Iterable[nn.Module]) -> list[Layers]:
    """A flat network's layers by blocks.

    Raises:
        ValueError: a layer that has no place in a block, or not there.
    """
    order = list(dict.fromkeys(_PLACES.values()))
    blocks: list[Layers] = []
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            if any(block.conv is layer for block in blocks):
                raise ValueError(f"the kernels know each layer at one place, and {layer} stands at two")
            blocks.append(Layers(layer))
            continue
        place = next((place for kind, place in _PLACES.items() if isinstance(layer, kind)), None)
        if place is None or not blocks or any(getattr(blocks[-1], taken) for taken in order[order.index(place) :]):
            raise ValueError(f"the kernels know convolutions, each followed by {', '.join(order)}, not {layer} here")
        setattr(blocks[-1], place, layer)
    return blocks


class NativeNetwork:
    """A network computed by kernels.c: float32, on the processor, in training or as it is used afterwards.

    Parameters and buffers stay where they are, and are read at each call; batches hold up to ``batch_size`` images.
    Results have the same bits for any number of threads. They differ from PyTorch's in nothing but rounding and the
    random numbers of dropout, which come from PyTorch's global generator by way of one 64-bit key a layer and step.
    A convolution's bias before batch norm gets an exact zero as its gradient, where PyTorch finds nearly that by
    cancellation.

    Args:
        size: of one image: channels, height, width.

    Raises:
        ValueError: a layer that the kernels do not know.
    """

    def __init__(self, network: nn.Sequential, size: tuple[int, int, int], batch_size: int, threads: int = 1) -> None:
        self.parameters = list(network.parameters())
        self._layers = group_layers(network)
        self._groups = -(-batch_size // LANES)
        self._gradients: dict[Tensor, Tensor] = {p: torch.zeros_like(p) for p in self.parameters}
        self._kernels, self._barrier = load(), _Barrier()
        self._threads = threads
        self._workers = ThreadPoolExecutor(max(1, threads - 1))
        self._kept: list[Tensor] = []
        self._blocks = (_Block * len(self._layers))()
        for block, layers in zip(self._blocks, self._layers, strict=True):
            size = _describe(block, layers, size)
        if size[1:] != (1, 1):
            raise ValueError(f"the network ends with {size[1]} x {size[2]} positions, not with one")
        for block, following in zip(self._blocks, [*self._blocks[1:], None], strict=True):
            block.z_padding = following.padding if following else 0
        first = self._blocks[0]
        x = self._buffer(first.inputs, first.height + first.kernel - 1, first.width + first.kernel - 1)
        self._inputs = _inner(x, first.padding)
        dx = None
        for block, layers in zip(self._blocks, self._layers, strict=True):
            x, dx = self._allocate(block, layers, x, dx)
        assert dx is not None
        self._scores, self._score_gradients = x, dx
        vectors = self._kernels.scratch_size(self._blocks, len(self._blocks))
        self._scratch = torch.empty(threads, vectors, LANES)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Scores ``(N, classes)`` of images ``(N, C, H, W)`` in training mode, for PyTorch to differentiate.

        Only the latest call can be differentiated, once.
        """
        scores: Tensor = _Pass.apply(self, inputs, *self.parameters)
        return scores

    def evaluate(self, inputs: Tensor) -> Tensor:
        """Scores ``(N, classes)`` of images ``(N, C, H, W)`` in evaluation mode."""
        return self._forward(inputs, training=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores in training mode, without a way back to the parameters."""
        for block, layers in zip(self._blocks, self._layers, strict=True):
            if layers.norm is not None and layers.norm.num_batches_tracked is not None:
                layers.norm.num_batches_tracked.add_(1)
            if block.drop_below:
                block.key = int(torch.randint(-(1 << 63), (1 << 63) - 1, ())) & ((1 << 64) - 1)
        return self._forward(inputs, training=True)

    def _forward(self, inputs: Tensor, training: bool) -> Tensor:
        _spread(inputs.reshape(-1, *self._inputs.shape[1:4]), self._inputs)
        self._run(self._kernels.forward, len(inputs), training)
        return self._scores.permute(0, 4, 1, 2, 3).reshape(-1, self._scores.shape[1])[: len(inputs)].clone()

    def backward(self, gradient: Tensor) -> list[Tensor]:
        """The gradients of the parameters, in their order, from that of the scores ``(N, classes)``."""
        _spread(gradient[:, :, None, None], self._score_gradients)
        self._run(self._kernels.backward, len(gradient))
        return [gradient.clone() for gradient in self._gradients.values()]

    def _run(self, function: Callable[..., object], *numbers: int) -> None:
        """Call a kernel once a thread; it has the threads wait for each other."""
        barrier = self._barrier

        def share(thread: int) -> None:
            scratch = ctypes.c_void_p(self._scratch[thread].data_ptr())
            function(self._blocks, len(self._blocks), *numbers, ctypes.byref(barrier), scratch, thread, self._threads)

        try:
            others = [self._workers.submit(share, thread) for thread in range(1, self._threads)]
            share(0)
            for other in others:
                other.result()
        except BaseException:
            # Ctrl-C, before this thread took its share: the others must not wait for it.
            barrier.abandoned, self._barrier = 1, _Barrier()
            raise

    def _buffer(self, *shape: int) -> Tensor:
        """Zeros, a float32 ``shape`` for each image, kept as long as this network."""
        self._kept.append(torch.zeros(self._groups, *shape, LANES))
        return self._kept[-1]

    def _allocate(self, block: _Block, layers: Layers, x: Tensor, dx: Tensor | None) -> tuple[Tensor, Tensor]:
        """Give a block its addresses; returns its ``z`` and ``dz``."""
        conv, norm = layers.conv, layers.norm
        z_shape = block.outputs, block.z_height, block.z_width
        around, dy_around = 2 * block.z_padding, 2 * block.dy_padding
        z = self._buffer(block.outputs, block.z_height + around, block.z_width + around)
        dz = self._buffer(*z_shape)
        scratch = {
            "y": self._buffer(block.outputs, block.height, block.width),
            "dy": self._buffer(block.outputs, block.height + dy_around, block.width + dy_around),
            "packed": torch.empty(_PACKED_GROWTH * conv.weight.numel()),
            "channel": torch.zeros(_CHANNEL_ROWS, block.outputs),
            "sums": torch.zeros(self._groups, block.outputs, 2, dtype=torch.float64),
        }
        self._kept += scratch.values()
        addresses = {
            "x": x, "dx": dx, "z": z, "dz": dz, **scratch,
            "weight": conv.weight, "dweight": self._gradients[conv.weight],
            "bias": conv.bias, "dbias": None if conv.bias is None else self._gradients[conv.bias],
        }  # fmt: skip
        if norm is not None:
            addresses |= {
                "gamma": norm.weight, "dgamma": self._gradients[norm.weight],
                "beta": norm.bias, "dbeta": self._gradients[norm.bias],
                "running_mean": norm.running_mean, "running_var": norm.running_var,
            }  # fmt: skip
        for name, tensor in addresses.items():
            setattr(block, name, None if tensor is None else tensor.data_ptr())
        return z, dz


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, native: NativeNetwork, inputs: Tensor, *parameters: Tensor) -> Tensor:
        ctx.native = native  # type: ignore[attr-defined]
        return native.forward(inputs)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return None, None, *ctx.native.backward(gradient)  # type: ignore[attr-defined]


def _describe(block: _Block, layers: Layers, size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Fill in a block's numbers for inputs of a ``size``; returns the size of its result."""
    conv, norm, pool = layers.conv, layers.norm, layers.pool
    inputs, height, width = size
    kernel_size = conv.kernel_size
    if kernel_size == (height, width) and conv.padding == (0, 0):
        # A convolution over the whole map sees each position as an input of its own.
        kernel_size, inputs, height, width = (1, 1), inputs * height * width, 1, 1
    plain = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.in_channels == size[0]
    if kernel_size not in ((1, 1), (3, 3)) or conv.padding not in ((0, 0), (1, 1), (2, 2)) or not plain:
        raise ValueError(f"the kernels do not know {conv}")
    kernel, padding = kernel_size[0], int(conv.padding[0])
    height, width = height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1
    block.inputs, block.outputs, block.kernel, block.padding = inputs, conv.out_channels, kernel, padding
    block.height, block.width, block.dy_padding = height, width, max(0, kernel - 1 - padding)
    block.sections = conv.groups
    block.relu = layers.relu is not None
    if norm is not None:
        if not norm.affine or not norm.track_running_stats or norm.momentum is None:
            raise ValueError(f"the kernels do not know {norm}")
        block.norm, block.epsilon, block.momentum = True, norm.eps, norm.momentum
    if layers.dropout is not None:
        block.drop_below = min(round(layers.dropout.p * 2**32), 2**32 - 1)
        block.keep_scale = 2**32 / (2**32 - block.drop_below)
    if pool is None:
        block.z_height, block.z_width = height, width
    elif isinstance(pool, nn.MaxPool2d) and pool.kernel_size == pool.stride == 2 and not pool.padding:
        block.pool, block.z_height, block.z_width = _MAX_POOL, height // 2, width // 2
    elif isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size == 1 or _averages(pool, height, width):
        block.pool, block.z_height, block.z_width = _AVERAGE_POOL, 1, 1
    else:
        raise ValueError(f"the kernels do not know {pool}")
    return block.outputs, block.z_height, block.z_width


def _averages(pool: nn.Module, height: int, width: int) -> bool:
    return isinstance(pool, nn.AvgPool2d) and height == width == pool.kernel_size and not pool.padding


def _inner(buffer: Tensor, padding: int) -> Tensor:
    """A buffer ``(groups, C, H, W, 16)`` without its border."""
    height, width = buffer.shape[2:4]
    return buffer[:, :, padding : height - padding, padding : width - padding]


def _spread(images: Tensor, buffer: Tensor) -> None:
    """Copy ``(N, C, H, W)`` into the lanes of ``(groups, C, H, W, 16)``; the rest of the last group becomes zero."""
    missing = -len(images) % LANES
    if missing:
        images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, missing))
    lanes = images.unflatten(0, (-1, LANES)).permute(0, 2, 3, 4, 1)
    buffer[: len(lanes)].copy_(lanes)
