"""The models by name: ``MODELS`` lists them, ``build`` makes one.

Each module beside this file is a model, and its ``network()`` the network; names that begin with an underscore are
none. A model is imported when it is built and not before, so that a change to one file concerns that model alone.
"""

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.mnist import CLASSES, IMAGE_SIDE

if TYPE_CHECKING:
    from torch import nn


def _place(name: str) -> tuple[bool, int, str]:
    """The models of the story come first, by their numbers, then all others by their names."""
    number = re.fullmatch(r"model_(\d+)", name)
    return not number, int(number[1]) if number else 0, name


MODELS: tuple[str, ...] = tuple(
    sorted((m.name for m in iter_modules(__path__) if not m.ispkg and not m.name.startswith("_")), key=_place)
)


def build(name: str, dropout: float = 0.0, widths: tuple[int, ...] | None = None) -> "nn.Module":
    """The named network, in training mode, on the CPU, freshly initialised from PyTorch's global generator.

    It takes ``(N, 1, 28, 28)`` float32 images and returns ``(N, 10)`` float32 logits.

    Args:
        name: one of ``MODELS``.
        dropout: rate of all its dropout layers, in [0, 1).
        widths: the channels of its layers, of a model that can be had in others than its own; None leaves those.

    Raises:
        InputError: no model has that name; its file is not valid Python, imports code that its stages do not depend
            on, or holds no such network; ``dropout`` is above 0 and the model has no dropout layer; or it cannot be
            had in these ``widths``.
    """
    if name not in MODELS:
        raise InputError(f"no model is called {name!r}; the models are {', '.join(MODELS)}")
    # Imported here because listing the models, which reading the settings does, should not load PyTorch.
    from mnist_cnn.layers import initialise, set_dropout
    from mnist_cnn.models._sources import not_followed

    spec = find_spec(f"{__name__}.{name}")
    assert spec is not None and spec.origin is not None
    try:
        unknown = not_followed(Path(spec.origin), __name__)
    except SyntaxError as error:
        raise InputError(f"{name}: {error.filename}, line {error.lineno}: {error.msg}") from None
    if unknown:
        raise InputError(
            f"{name} imports {', '.join(unknown)}, whose changes 'dvc repro' may not see: code for models belongs in "
            "src/mnist_cnn/layers, on which all models depend"
        )
    module = import_module(f"{__name__}.{name}")
    own = getattr(module, "WIDTHS", ())
    if widths is not None and len(widths) != len(own):
        allowed = f"as many as {list(own)}" if own else "none, it can be had in its own alone"
        raise InputError(f"{name}: widths: {list(widths)} is not allowed: {allowed}")
    if not callable(getattr(module, "network", None)):
        raise InputError(f"{name} has no function network(), which every model's file has")
    network: nn.Module = module.network(widths) if widths else module.network()
    _check_logits(name, network)
    initialise(network)
    if not set_dropout(network, dropout) and dropout > 0:
        raise InputError(f"{name} has no dropout layers: its dropout must be 0, not {dropout}")
    return network


def _check_logits(name: str, network: "nn.Module") -> None:
    """Refuse what is no network, or not one from images to logits, by two blank images in evaluation mode."""
    import torch
    from torch import nn

    if not isinstance(network, nn.Module):
        raise InputError(f"{name}: network() returns {type(network).__name__}, not a PyTorch module")
    images = torch.zeros(2, 1, IMAGE_SIDE, IMAGE_SIDE)
    try:
        with torch.no_grad():
            logits = network.eval()(images)
    except Exception as error:  # whatever a network's own code may raise
        fault = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name}: the network does not take images {tuple(images.shape)}: {fault}") from None
    network.train()
    found = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != (wanted := f"torch.float32 (2, {CLASSES})"):
        raise InputError(f"{name}: the network returns {found} for two images, not {wanted}")
