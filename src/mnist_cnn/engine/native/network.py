"""A network laid out in memory for kernels.c, and its forward and backward pass as one differentiable call.

Every buffer is made once: a training step allocates nothing of size.
"""

import ctypes
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.engine.native.build import load, missing_compiler
from mnist_cnn.layers import Network

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
_Shapes: TypeAlias = dict[str, tuple[int, ...]]
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class UnsupportedError(ValueError):
    """The kernels do not compute a network; the message names the layer or what else is unknown to them."""


# Of one image: channels, height, width.
Size: TypeAlias = tuple[int, int, int]
_IMAGE: Size = (1, IMAGE_SIDE, IMAGE_SIDE)


def supports(network: nn.Module, size: Size = _IMAGE) -> str | None:
    """Why the kernels cannot compute a network for images of a ``size`` here; None where they can.

    They go by exact types and look at every option: a layer or option that they do not know might compute something
    else.
    """
    try:
        _plan(network, size)
    except UnsupportedError as reason:
        return str(reason)
    return missing_compiler()


def compile(network: nn.Module, batch_size: int, threads: int, size: Size = _IMAGE) -> "NativeNetwork":
    """The network computed by the kernels, for batches of up to ``batch_size`` images. Raises as ``NativeNetwork``."""
    return NativeNetwork(network, size, batch_size, threads)


def group_layers(network: nn.Module) -> list[Layers]:
    """A network's layers by blocks.

    Raises:
        UnsupportedError: a layer that has no place in a block, or not there.
    """
    order = list(dict.fromkeys(_PLACES.values()))
    blocks: list[Layers] = []
    row = list(_in_a_row(network))
    if row and type(row[-1]) is nn.Flatten and (row[-1].start_dim, row[-1].end_dim) == (1, -1):
        row.pop()  # scores are flat anyway
    for layer in row:
        if type(layer) is nn.Conv2d:
            blocks.append(Layers(layer))
            continue
        place = _PLACES.get(type(layer))
        if place is None or not blocks or any(getattr(blocks[-1], taken) for taken in order[order.index(place) :]):
            raise UnsupportedError(
                f"the kernels know convolutions, each followed by {', '.join(order)}, not {_told(layer)} here"
            )
        setattr(blocks[-1], place, layer)
    if not blocks:
        raise UnsupportedError("the kernels know convolutions, and there is none")
    return blocks


def _in_a_row(network: nn.Module) -> Iterator[nn.Module]:
    """The layers of a sequence, those of a sequence in it included."""
    if type(network) not in (nn.Sequential, Network):
        raise UnsupportedError(f"the kernels know layers in a row, not the forward pass of {type(network).__name__}")
    assert isinstance(network, nn.Sequential)
    _check_is_plain(network)
    # Not its children, which leave out the second of two places where one layer stands.
    for layer in network:
        if type(layer) is nn.Sequential:
            yield from _in_a_row(layer)
        else:
            _check_is_plain(layer)
            yield layer


def _check_is_plain(layer: nn.Module) -> None:
    """Nothing is attached to a layer that changes what it computes, and its tensors are those that it was made with."""
    if any(getattr(layer, hooks) for hooks in _HOOKS) or any(map(callable, vars(layer).values())):
        raise UnsupportedError(f"the kernels know no hooks and no replaced methods, as {_told(layer)} has")
    weights, buffers = _shapes(layer.named_parameters(recurse=False)), _shapes(layer.named_buffers(recurse=False))
    if (weights, buffers) != _usual_shapes(layer):
        raise UnsupportedError(f"the kernels know other tensors than those of {_told(layer)}")
    for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
        is_plain = type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and tensor.is_contiguous()
        if not is_plain or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            raise UnsupportedError(
                f"the kernels know contiguous float32 tensors on the CPU, not {name} of {_told(layer)}"
            )


def _shapes(tensors: Iterable[tuple[str, Tensor]]) -> _Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def _usual_shapes(layer: nn.Module) -> tuple[_Shapes, _Shapes]:
    """What PyTorch gives a layer of these options: the shapes of its parameters and of its buffers."""
    if isinstance(layer, nn.Conv2d):
        weight = layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size
        return {"weight": weight} | ({} if layer.bias is None else {"bias": (layer.out_channels,)}), {}
    if isinstance(layer, nn.BatchNorm2d):
        channels = (layer.num_features,)
        of_weights: _Shapes = {"weight": channels, "bias": channels} if layer.affine else {}
        statistics: _Shapes = {"running_mean": channels, "running_var": channels} if layer.track_running_stats else {}
        return of_weights, statistics if layer.num_batches_tracked is None else statistics | {"num_batches_tracked": ()}
    return {}, {}


def _told(layer: nn.Module) -> str:
    """A layer as PyTorch writes it, in one line."""
    return type(layer).__name__ if next(layer.children(), None) is not None else " ".join(repr(layer).split())


def _plan(network: nn.Module, size: Size) -> tuple[list[Layers], ctypes.Array[_Block]]:
    """The network's blocks, and their description without addresses. Raises UnsupportedError."""
    if _has_any_global_hook():
        raise UnsupportedError("the kernels know no hooks, and there are some of all modules")
    layers = group_layers(network)
    modules = [module for block in layers for module in vars(block).values() if module is not None]
    weights = [weight.data_ptr() for module in modules for weight in module.parameters()]
    if len(weights) != len(set(weights)):
        raise UnsupportedError("the kernels know each layer at one place, and here two share their weights")
    blocks = (_Block * len(layers))()
    for block, parts in zip(blocks, layers, strict=True):
        size = _describe(block, parts, size)
    if size[1:] != (1, 1):
        raise UnsupportedError(f"the kernels know one position at the end, not {size[1]} x {size[2]}")
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        block.z_padding = following.padding if following else 0
    return layers, blocks


class NativeNetwork:
    """A network computed by kernels.c: float32, on the processor, in training or as it is used afterwards.

    Parameters and buffers stay where they are, and are read at each call; batches hold up to ``batch_size`` images.
    Results have the same bits for any number of threads. They differ from PyTorch's in nothing but rounding and the
    random numbers of dropout, which come from PyTorch's global generator by way of one 64-bit key a layer and step.
    A convolution's bias before batch norm gets an exact zero as its gradient, where PyTorch finds nearly that by
    cancellation.

    Args:
        size: of one image: channels, height, width.

    NaN and infinity in images, weights and gradients reach the results as in PyTorch, with one difference: where
    several neighbouring results are computed together, what is not finite among their inputs may become NaN in all.
    A layer's options, dropout's rate among them, are read once, when this is made.

    Raises:
        UnsupportedError: something that the kernels do not know, as ``supports`` says beforehand.
        ValueError: batch norm, in training, of a batch that has one value a channel; as in PyTorch.
    """

    def __init__(self, network: nn.Module, size: Size, batch_size: int, threads: int = 1) -> None:
        self.parameters = list(network.parameters())
        self._layers, self._blocks = _plan(network, size)
        self._groups = -(-batch_size // LANES)
        self._gradients: dict[Tensor, Tensor] = {p: torch.zeros_like(p) for p in self.parameters}
        self._kernels, self._barrier = load(), _Barrier()
        self._threads = threads
        self._workers = ThreadPoolExecutor(max(1, threads - 1))
        self._kept: list[Tensor] = []
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
            if block.norm and len(inputs) * block.height * block.width == 1:
                raise ValueError("batch norm needs more than one value a channel in training; here is a batch of one")
            if layers.norm is not None and layers.norm.num_batches_tracked is not None:
                layers.norm.num_batches_tracked.add_(1)
            if block.drop_below:
                block.key = int(torch.randint(-(1 << 63), (1 << 63) - 1, ())) & ((1 << 64) - 1)
        return self._forward(inputs, training=True)

    def _forward(self, inputs: Tensor, training: bool) -> Tensor:
        images = inputs.reshape(-1, *self._inputs.shape[1:4])
        # Lanes without an image hold the first one again: what they compute is not finite only where it is, too.
        missing = -len(images) % LANES
        if missing:
            images = torch.cat([images, images[:1].expand(missing, -1, -1, -1)])
        _spread(images, self._inputs)
        self._run(self._kernels.forward, len(inputs), training)
        return self._scores.permute(0, 4, 1, 2, 3).reshape(-1, self._scores.shape[1])[: len(inputs)].clone()

    def backward(self, gradient: Tensor) -> list[Tensor]:
        """The gradients of the parameters, in their order, from that of the scores ``(N, classes)``."""
        _spread(F.pad(gradient[:, :, None, None], (0, 0, 0, 0, 0, 0, 0, -len(gradient) % LANES)), self._score_gradients)
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


def _describe(block: _Block, layers: Layers, size: Size) -> tuple[int, int, int]:
    """Fill in a block's numbers for inputs of a ``size``; returns the size of its result."""
    height, width = _describe_convolution(block, layers.conv, size)
    block.relu = layers.relu is not None
    if layers.norm is not None:
        norm = layers.norm
        known = norm.affine and norm.track_running_stats and norm.momentum is not None
        _require(norm, known and norm.num_features == block.outputs)
        block.norm, block.epsilon, block.momentum = True, norm.eps, norm.momentum
    if layers.dropout is not None:
        _require(layers.dropout, layers.dropout.p < 1)
        block.drop_below = min(round(layers.dropout.p * 2**32), 2**32 - 1)
        block.keep_scale = 2**32 / (2**32 - block.drop_below)
    block.pool, block.z_height, block.z_width = _pooled(layers.pool, height, width)
    return block.outputs, block.z_height, block.z_width


def _describe_convolution(block: _Block, conv: nn.Conv2d, size: Size) -> tuple[int, int]:
    """A convolution's numbers; returns height and width of its result."""
    inputs, height, width = size
    kernel_size = conv.kernel_size
    if kernel_size == (height, width) and conv.padding == (0, 0):
        # A convolution over the whole map sees each position as an input of its own.
        kernel_size, inputs, height, width = (1, 1), inputs * height * width, 1, 1
    plain = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    sizes = kernel_size in ((1, 1), (3, 3)) and conv.padding in ((0, 0), (1, 1), (2, 2))
    _require(conv, plain and sizes and conv.in_channels == size[0])
    kernel, padding = kernel_size[0], int(conv.padding[0])
    height, width = height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1
    _require(conv, height > 0 and width > 0)
    block.inputs, block.outputs, block.kernel, block.padding = inputs, conv.out_channels, kernel, padding
    block.height, block.width, block.dy_padding = height, width, max(0, kernel - 1 - padding)
    block.sections = conv.groups
    return height, width


def _pooled(pool: nn.Module | None, height: int, width: int) -> tuple[int, int, int]:
    """The kind of pooling, and height and width of its result."""
    if pool is None:
        return 0, height, width
    if isinstance(pool, nn.MaxPool2d):
        windows = _pair(pool.kernel_size) == _pair(pool.stride) == (2, 2) and _pair(pool.padding) == (0, 0)
        plain = _pair(pool.dilation) == (1, 1) and not pool.ceil_mode and not pool.return_indices
        _require(pool, windows and plain and height > 1 and width > 1)
        return _MAX_POOL, height // 2, width // 2
    if isinstance(pool, nn.AvgPool2d):
        whole = _pair(pool.kernel_size) == (height, width) and _pair(pool.padding) == (0, 0)
        _require(pool, whole and pool.divisor_override is None)
    elif isinstance(pool, nn.AdaptiveAvgPool2d):
        _require(pool, _pair(pool.output_size) == (1, 1))
    return _AVERAGE_POOL, 1, 1


def _pair(size: object) -> object:
    """What PyTorch takes one number for: the same in both directions."""
    return size if isinstance(size, tuple) else (size, size)


def _require(layer: nn.Module, known: bool) -> None:
    if not known:
        raise UnsupportedError(f"the kernels do not know {_told(layer)} here")


def _inner(buffer: Tensor, padding: int) -> Tensor:
    """A buffer ``(groups, C, H, W, 16)`` without its border."""
    height, width = buffer.shape[2:4]
    return buffer[:, :, padding : height - padding, padding : width - padding]


def _spread(images: Tensor, buffer: Tensor) -> None:
    """Copy ``(N, C, H, W)``, N a multiple of the lanes, into the lanes of ``(groups, C, H, W, 16)``."""
    lanes = images.unflatten(0, (-1, LANES)).permute(0, 2, 3, 4, 1)
    buffer[: len(lanes)].copy_(lanes)
