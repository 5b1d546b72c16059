"""A network as kernels.c computes it: its blocks, their memory, and both passes as one differentiable call.

A network is a sequence of blocks: a convolution, then batch norm, dropout, ReLU and pooling, each optional. Batches are
cut into lane blocks of 16 images, and buffers are ``(lane blocks, C, H, W, 16)``: kernels.c says why. Every buffer is
made once, so that a training step allocates no large memory.
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

# As in kernels.c: the images of a lane block, the kinds of pooling, the number of ``NormTerm``.
LANES = 16
_NO_POOL, _MAX_POOL, _AVERAGE_POOL = 0, 1, 2
_NORM_TERMS = 6
# Winograd's filter transform makes 6 numbers of the 3 weights of a kernel row: packed weights take twice the memory.
_PACKED_GROWTH = 2


class _Block(ctypes.Structure):
    """``Block`` of kernels.c, field by field.

    The convolution reads ``x`` and writes ``y``, of ``y_height`` by ``y_width``; the block's output is ``z``, of
    ``z_height`` by ``z_width``. The buffers of ``x``, ``z`` and ``dy`` contain the zeros that the convolution reading
    them pads with. ``x`` and ``dx`` are ``z`` and ``dz`` of the block before; the first block has no ``dx``.
    """

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("in_channels", "out_channels", "kernel_size", "padding", "groups")),
        *((name, ctypes.c_int32) for name in ("y_height", "y_width", "has_norm", "has_relu", "pool")),
        *((name, ctypes.c_int32) for name in ("z_height", "z_width", "z_padding", "dy_padding")),
        ("dropout_threshold", ctypes.c_uint32),
        *((name, ctypes.c_float) for name in ("dropout_scale", "epsilon", "momentum")),
        ("dropout_key", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "gamma", "beta", "running_mean", "running_var")),
        *((name, ctypes.c_void_p) for name in ("x", "y", "z", "dz", "dy", "dx")),
        *((name, ctypes.c_void_p) for name in ("dweight", "dbias", "dgamma", "dbeta")),
        *((name, ctypes.c_void_p) for name in ("packed_weight", "norm_terms", "partial_sums")),
    )


class _Barrier(ctypes.Structure):
    """``Barrier`` of kernels.c."""

    _fields_ = tuple((name, ctypes.c_int32) for name in ("arrived", "phase", "abandoned"))


@dataclass
class _Layers:
    """The layers of one block: a convolution and what follows it, in this order."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None = None
    dropout: nn.Dropout | None = None
    relu: nn.ReLU | None = None
    pool: nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d | None = None


# The layers that may follow a convolution, and their place in a block.
_PLACES: dict[type[nn.Module], str] = {
    nn.BatchNorm2d: "norm",
    nn.Dropout: "dropout",
    nn.ReLU: "relu",
    nn.MaxPool2d: "pool",
    nn.AvgPool2d: "pool",
    nn.AdaptiveAvgPool2d: "pool",
}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_Shapes: TypeAlias = dict[str, tuple[int, ...]]


class UnsupportedError(ValueError):
    """The kernels do not support a network; the message names the layer or whatever else is the reason."""


# Of one image: channels, height, width.
Size: TypeAlias = tuple[int, int, int]
_IMAGE: Size = (1, IMAGE_SIDE, IMAGE_SIDE)


def supports(network: nn.Module, size: Size = _IMAGE) -> str | None:
    """Why the kernels cannot compute a network for images of a ``size`` here; None where they can.

    A layer's type must be one that the kernels support, not a subclass, and every option is checked: any other layer
    or option might compute something else.
    """
    try:
        _plan(network, size)
    except UnsupportedError as reason:
        return str(reason)
    return missing_compiler()


def compile(network: nn.Module, batch_size: int, threads: int, size: Size = _IMAGE) -> "NativeNetwork":
    """The network computed by the kernels, for batches of up to ``batch_size`` images. Raises as ``NativeNetwork``."""
    return NativeNetwork(network, size, batch_size, threads)


# ---- From a network to blocks


def _plan(network: nn.Module, size: Size) -> tuple[list[_Layers], ctypes.Array[_Block]]:
    """The network's layers by blocks, and the blocks without addresses. Raises UnsupportedError."""
    if _has_any_global_hook():
        raise UnsupportedError("the kernels do not support global module hooks, and some are registered")
    layers = _layers_by_block(network)
    modules = [module for block in layers for module in vars(block).values() if module is not None]
    weights = [weight.data_ptr() for module in modules for weight in module.parameters()]
    if len(weights) != len(set(weights)):
        raise UnsupportedError("the kernels do not support shared weights: each layer may stand at one place only")
    blocks = (_Block * len(layers))()
    for block, of_block in zip(blocks, layers, strict=True):
        size = _describe(block, of_block, size)
    if size[1:] != (1, 1):
        raise UnsupportedError(f"the kernels do not support an output of {size[1]} x {size[2]} positions, only of one")
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        block.z_padding = following.padding if following else 0
    return layers, blocks


def _layers_by_block(network: nn.Module) -> list[_Layers]:
    """A network's layers, block by block. Raises UnsupportedError where a layer does not fit into a block."""
    order = list(dict.fromkeys(_PLACES.values()))
    blocks: list[_Layers] = []
    sequence = list(_in_sequence(network))
    if sequence and type(sequence[-1]) is nn.Flatten and (sequence[-1].start_dim, sequence[-1].end_dim) == (1, -1):
        sequence.pop()  # logits are flat anyway
    for layer in sequence:
        if type(layer) is nn.Conv2d:
            blocks.append(_Layers(layer))
            continue
        place = _PLACES.get(type(layer))
        if place is None or not blocks or any(getattr(blocks[-1], taken) for taken in order[order.index(place) :]):
            raise UnsupportedError(
                f"the kernels do not support {_described(layer)} here, only convolutions, each followed by batch norm, "
                "dropout, ReLU and pooling, in this order"
            )
        setattr(blocks[-1], place, layer)
    if not blocks:
        raise UnsupportedError("the kernels do not support a network without convolutions, and this one has none")
    return blocks


def _in_sequence(network: nn.Module) -> Iterator[nn.Module]:
    """The layers of a sequence, including those of sequences in it."""
    if type(network) not in (nn.Sequential, Network):
        raise UnsupportedError(
            f"the kernels do not support the forward pass of {type(network).__name__}, only layers in sequence"
        )
    assert isinstance(network, nn.Sequential)
    _check_is_unmodified(network)
    # Its children would not do: they name a layer once that stands at two places.
    for layer in network:
        if type(layer) is nn.Sequential:
            yield from _in_sequence(layer)
        else:
            _check_is_unmodified(layer)
            yield layer


def _check_is_unmodified(layer: nn.Module) -> None:
    """Refuse a layer that has hooks, replaced methods, or other tensors than PyTorch gave it."""
    if any(getattr(layer, hooks) for hooks in _HOOKS) or any(map(callable, vars(layer).values())):
        raise UnsupportedError(f"the kernels do not support {_described(layer)} with hooks or replaced methods")
    parameters, buffers = list(layer.named_parameters(recurse=False)), list(layer.named_buffers(recurse=False))
    if (_shapes(parameters), _shapes(buffers)) != _original_shapes(layer):
        raise UnsupportedError(
            f"the kernels do not support {_described(layer)} with tensors other than its original ones"
        )
    for name, tensor in [*parameters, *buffers]:
        is_plain = type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and tensor.is_contiguous()
        if not is_plain or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            raise UnsupportedError(
                f"the kernels do not support the {name} of {_described(layer)}, only contiguous float32 tensors on "
                "the CPU"
            )


def _shapes(tensors: Iterable[tuple[str, Tensor]]) -> _Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def _original_shapes(layer: nn.Module) -> tuple[_Shapes, _Shapes]:
    """The shapes of the parameters and of the buffers that PyTorch gives a layer of these options."""
    if isinstance(layer, nn.Conv2d):
        weight = layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size
        return {"weight": weight} | ({} if layer.bias is None else {"bias": (layer.out_channels,)}), {}
    if isinstance(layer, nn.BatchNorm2d):
        channels = (layer.num_features,)
        parameters: _Shapes = {"weight": channels, "bias": channels} if layer.affine else {}
        statistics: _Shapes = {"running_mean": channels, "running_var": channels} if layer.track_running_stats else {}
        return parameters, statistics if layer.num_batches_tracked is None else statistics | {"num_batches_tracked": ()}
    return {}, {}


def _described(layer: nn.Module) -> str:
    """A layer as PyTorch prints it, in one line."""
    return type(layer).__name__ if next(layer.children(), None) is not None else " ".join(repr(layer).split())


def _describe(block: _Block, layers: _Layers, size: Size) -> Size:
    """Fill in a block's options and sizes for inputs of a ``size``; returns the size of its output."""
    _describe_convolution(block, layers.conv, size)
    block.has_relu = layers.relu is not None
    if layers.norm is not None:
        norm = layers.norm
        usual = norm.affine and norm.track_running_stats and norm.momentum is not None
        _require(norm, usual and norm.num_features == block.out_channels)
        block.has_norm, block.epsilon, block.momentum = True, norm.eps, norm.momentum
    if layers.dropout is not None:
        _require(layers.dropout, layers.dropout.p < 1)
        # The random numbers have 32 bits. The scale is 1 / (1 - p) for the p that the threshold stands for.
        block.dropout_threshold = min(round(layers.dropout.p * 2**32), 2**32 - 1)
        block.dropout_scale = 2**32 / (2**32 - block.dropout_threshold)
    block.pool, block.z_height, block.z_width = _pooled(layers.pool, block.y_height, block.y_width)
    return block.out_channels, block.z_height, block.z_width


def _describe_convolution(block: _Block, conv: nn.Conv2d, size: Size) -> None:
    """Fill in a convolution's options and sizes."""
    in_channels, height, width = size
    kernel_size = conv.kernel_size
    if kernel_size == (height, width) and conv.padding == (0, 0):
        # A kernel as large as the map is a 1x1 convolution that has every position as an input channel.
        kernel_size, in_channels, height, width = (1, 1), in_channels * height * width, 1, 1
    has_usual_options = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    has_known_size = kernel_size in ((1, 1), (3, 3)) and conv.padding in ((0, 0), (1, 1), (2, 2))
    _require(conv, has_usual_options and has_known_size and conv.in_channels == size[0])
    kernel, padding = kernel_size[0], int(conv.padding[0])
    height, width = height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1
    _require(conv, height > 0 and width > 0)
    block.in_channels, block.out_channels, block.groups = in_channels, conv.out_channels, conv.groups
    block.kernel_size, block.padding = kernel, padding
    # The gradient of the input is a convolution of dy that pads with so many zeros.
    block.y_height, block.y_width, block.dy_padding = height, width, max(0, kernel - 1 - padding)


def _pooled(pool: nn.Module | None, height: int, width: int) -> tuple[int, int, int]:
    """The kind of pooling, and height and width of its output."""
    if pool is None:
        return _NO_POOL, height, width
    if isinstance(pool, nn.MaxPool2d):
        is_2x2 = _pair(pool.kernel_size) == _pair(pool.stride) == (2, 2) and _pair(pool.padding) == (0, 0)
        has_usual_options = _pair(pool.dilation) == (1, 1) and not pool.ceil_mode and not pool.return_indices
        _require(pool, is_2x2 and has_usual_options and height > 1 and width > 1)
        return _MAX_POOL, height // 2, width // 2
    if isinstance(pool, nn.AvgPool2d):
        is_global = _pair(pool.kernel_size) == (height, width) and _pair(pool.padding) == (0, 0)
        _require(pool, is_global and pool.divisor_override is None)
    elif isinstance(pool, nn.AdaptiveAvgPool2d):
        _require(pool, _pair(pool.output_size) == (1, 1))
    return _AVERAGE_POOL, 1, 1


def _pair(size: object) -> object:
    """A size for both directions: PyTorch also takes a single number."""
    return size if isinstance(size, tuple) else (size, size)


def _require(layer: nn.Module, supported: bool) -> None:
    if not supported:
        raise UnsupportedError(f"the kernels do not support {_described(layer)} here")


# ---- Memory and passes


class NativeNetwork:
    """A network computed by kernels.c: in float32, on the CPU, in training and in evaluation mode.

    The kernels read and write the network's own parameters and buffers at each call. Batches have up to ``batch_size``
    images. Results have the same bits for any number of threads. They differ from PyTorch's by rounding, and by the
    random numbers of dropout: PyTorch's global generator draws one 64-bit key for each dropout layer and step, and the
    kernels hash it. The gradient of a convolution's bias before batch norm is exactly zero, where PyTorch gets rounding
    errors near zero.

    NaN and infinity in images, weights and gradients reach the results as in PyTorch, with one difference: where
    neighbouring outputs are computed together, a value among their inputs that is not finite may make all of them NaN.
    Options of layers, such as the rate of dropout, are read once, when this is made.

    Args:
        size: of one image: channels, height, width.

    Raises:
        UnsupportedError: the network has something that the kernels do not support; ``supports`` says so beforehand.
        ValueError: batch norm in training gets a batch with one value for each channel, as in PyTorch.
    """

    def __init__(self, network: nn.Module, size: Size, batch_size: int, threads: int = 1) -> None:
        self.parameters = list(network.parameters())
        self._layers, self._blocks = _plan(network, size)
        self._lane_blocks = -(-batch_size // LANES)
        self._gradients: dict[Tensor, Tensor] = {p: torch.zeros_like(p) for p in self.parameters}
        self._kernels, self._barrier = load(), _Barrier()
        self._threads = threads
        self._workers = ThreadPoolExecutor(max(1, threads - 1))
        # The blocks hold bare addresses: this keeps the memory behind them.
        self._kept: list[Tensor] = []
        first = self._blocks[0]
        margin = first.kernel_size - 1
        x = self._buffer(first.in_channels, first.y_height + margin, first.y_width + margin)
        self._inputs = _without_padding(x, first.padding)
        dx = None
        for block, layers in zip(self._blocks, self._layers, strict=True):
            x, dx = self._allocate(block, layers, x, dx)
        assert dx is not None
        self._logits, self._logit_gradients = x, dx
        vectors = self._kernels.scratch_size(self._blocks, len(self._blocks))
        self._scratch = torch.empty(threads, vectors, LANES)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of images ``(N, C, H, W)`` in training mode, which autograd can differentiate.

        Only the latest call can be differentiated, and only once.
        """
        logits: Tensor = _Pass.apply(self, inputs, *self.parameters)
        return logits

    def evaluate(self, inputs: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of images ``(N, C, H, W)`` in evaluation mode."""
        return self._forward(inputs, training=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits in training mode, which autograd cannot differentiate."""
        for block, layers in zip(self._blocks, self._layers, strict=True):
            if block.has_norm and len(inputs) * block.y_height * block.y_width == 1:
                raise ValueError("batch norm in training needs more than one value per channel, and this batch has one")
            if layers.norm is not None and layers.norm.num_batches_tracked is not None:
                layers.norm.num_batches_tracked.add_(1)
            if block.dropout_threshold:
                block.dropout_key = int(torch.randint(-(1 << 63), (1 << 63) - 1, ())) & ((1 << 64) - 1)
        return self._forward(inputs, training=True)

    def _forward(self, inputs: Tensor, training: bool) -> Tensor:
        images = inputs.reshape(-1, *self._inputs.shape[1:4])
        # Lanes without an image repeat the first one, so that they are finite where it is.
        missing = -len(images) % LANES
        if missing:
            images = torch.cat([images, images[:1].expand(missing, -1, -1, -1)])
        _copy_to_lanes(images, self._inputs)
        self._run(self._kernels.forward, len(inputs), training)
        return self._logits.permute(0, 4, 1, 2, 3).reshape(-1, self._logits.shape[1])[: len(inputs)].clone()

    def backward(self, gradient: Tensor) -> list[Tensor]:
        """The gradients of the parameters, in their order, from that of the logits ``(N, classes)``."""
        # Lanes without an image get zeros.
        missing = -len(gradient) % LANES
        _copy_to_lanes(F.pad(gradient[:, :, None, None], (0, 0, 0, 0, 0, 0, 0, missing)), self._logit_gradients)
        self._run(self._kernels.backward, len(gradient))
        return [gradient.clone() for gradient in self._gradients.values()]

    def _run(self, kernel: Callable[..., object], *numbers: int) -> None:
        """Call a kernel in every thread; inside it the threads wait for one another."""
        barrier = self._barrier

        def run_thread(thread: int) -> None:
            scratch = ctypes.c_void_p(self._scratch[thread].data_ptr())
            kernel(self._blocks, len(self._blocks), *numbers, ctypes.byref(barrier), scratch, thread, self._threads)

        try:
            others = [self._workers.submit(run_thread, thread) for thread in range(1, self._threads)]
            run_thread(0)
            for other in others:
                other.result()
        except BaseException:
            # Ctrl-C before this thread called the kernel: the others must not wait for it.
            barrier.abandoned, self._barrier = 1, _Barrier()
            raise

    def _buffer(self, *shape: int) -> Tensor:
        """Zeros, a float32 ``shape`` for each image, kept as long as this network."""
        self._kept.append(torch.zeros(self._lane_blocks, *shape, LANES))
        return self._kept[-1]

    def _allocate(self, block: _Block, layers: _Layers, x: Tensor, dx: Tensor | None) -> tuple[Tensor, Tensor]:
        """Give a block its addresses; returns its ``z`` and ``dz``."""
        z_padding, dy_padding = 2 * block.z_padding, 2 * block.dy_padding
        z = self._buffer(block.out_channels, block.z_height + z_padding, block.z_width + z_padding)
        dz = self._buffer(block.out_channels, block.z_height, block.z_width)
        own = {
            "y": self._buffer(block.out_channels, block.y_height, block.y_width),
            "dy": self._buffer(block.out_channels, block.y_height + dy_padding, block.y_width + dy_padding),
            "packed_weight": torch.empty(_PACKED_GROWTH * layers.conv.weight.numel()),
            "norm_terms": torch.zeros(_NORM_TERMS, block.out_channels),
            "partial_sums": torch.zeros(self._lane_blocks, block.out_channels, 2, dtype=torch.float64),
        }
        self._kept += own.values()
        tensors = {"x": x, "dx": dx, "z": z, "dz": dz, **own, **self._parameters_of(layers)}
        for name, tensor in tensors.items():
            setattr(block, name, None if tensor is None else tensor.data_ptr())
        return z, dz

    def _parameters_of(self, layers: _Layers) -> dict[str, Tensor | None]:
        """A block's parameters, their gradients and the running statistics, by the names of ``_Block``."""
        conv, norm = layers.conv, layers.norm
        tensors = {
            "weight": conv.weight, "dweight": self._gradients[conv.weight],
            "bias": conv.bias, "dbias": None if conv.bias is None else self._gradients[conv.bias],
        }  # fmt: skip
        if norm is not None:
            tensors |= {
                "gamma": norm.weight, "dgamma": self._gradients[norm.weight],
                "beta": norm.bias, "dbeta": self._gradients[norm.bias],
                "running_mean": norm.running_mean, "running_var": norm.running_var,
            }  # fmt: skip
        return tensors


class _Pass(torch.autograd.Function):
    """Both passes of a ``NativeNetwork`` for autograd."""

    @staticmethod
    def forward(ctx: FunctionCtx, native: NativeNetwork, inputs: Tensor, *parameters: Tensor) -> Tensor:
        ctx.native = native  # type: ignore[attr-defined]
        return native.forward(inputs)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return None, None, *ctx.native.backward(gradient)  # type: ignore[attr-defined]


def _without_padding(buffer: Tensor, padding: int) -> Tensor:
    """The part of a buffer ``(lane blocks, C, H, W, 16)`` inside its padding."""
    height, width = buffer.shape[2:4]
    return buffer[:, :, padding : height - padding, padding : width - padding]


def _copy_to_lanes(images: Tensor, buffer: Tensor) -> None:
    """Copy ``(N, C, H, W)``, N a multiple of 16, to ``(lane blocks, C, H, W, 16)``."""
    lanes = images.unflatten(0, (-1, LANES)).permute(0, 2, 3, 4, 1)
    buffer[: len(lanes)].copy_(lanes)
