"""The models by name: ``MODELS`` lists them, ``build`` makes one.

Each ``model_*.py`` beside this file is a model, and its ``network()`` the network. A model is imported when
it is built and not before, so that a change to one file concerns that model alone.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from mnist_cnn.errors import InputError

if TYPE_CHECKING:
    from mnist_cnn.layers import Network

MODELS: tuple[str, ...] = tuple(sorted(m.name for m in iter_modules(__path__) if m.name.startswith("model_")))


def build(name: str, dropout: float | None = None, widths: tuple[int, ...] | None = None) -> "Network":
    """The named network, in training mode, on the CPU, freshly initialised from PyTorch's global generator.

    It takes ``(N, 1, 28, 28)`` float32 images and returns ``(N, 10)`` float32 scores (logits: no softmax).

    Args:
        name: one of ``MODELS``.
        dropout: rate of its dropout layers, in [0, 1); None leaves the model's own.
        widths: the channels of its layers, of a model that can be had in others than its own; None leaves those.

    Raises:
        InputError: no model has that name, ``dropout`` is above 0 and the model has no dropout layer, or it cannot be
            had in these ``widths``.
    """
    if name not in MODELS:
        raise InputError(f"no model is called {name!r}; the models are {', '.join(MODELS)}")
    # Imported here because listing the models, which reading the settings does, should not load PyTorch.
    from mnist_cnn.layers import initialise, set_dropout

    module = import_module(f"{__name__}.{name}")
    own = getattr(module, "WIDTHS", ())
    if widths is not None and len(widths) != len(own):
        allowed = f"as many as {list(own)}" if own else "none, it can be had in its own alone"
        raise InputError(f"{name}: widths: {list(widths)} is not allowed: {allowed}")
    network: Network = module.network(widths) if widths else module.network()
    initialise(network)
    if dropout is not None and not set_dropout(network, dropout) and dropout > 0:
        raise InputError(f"{name} has no dropout layers: its dropout must be 0, not {dropout}")
    return network
