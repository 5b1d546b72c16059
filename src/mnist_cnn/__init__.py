"""Small networks for MNIST: models, training, evaluation and reporting.

``load_model``, ``read_digit`` and ``as_digit`` put a trained model to work; see ``docs/models.md``.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_cnn.inference.classifier import Classifier, load_model
    from mnist_cnn.inference.digits import as_digit, read_digit

__all__ = ["Classifier", "as_digit", "load_model", "read_digit"]

_PLACES = {"Classifier": "classifier", "as_digit": "digits", "load_model": "classifier", "read_digit": "digits"}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """What ``__all__`` names, imported when it is first asked for: PyTorch takes a second, and stages need it later."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mnist_cnn.common.platforms import vector_instructions

    # As stages have it, so that predictions have their bits. PyTorch reads this when it is imported; a program that has
    # done so already keeps what it has, and so does one whose user has chosen.
    if (instructions := vector_instructions()) and "torch" not in sys.modules:
        os.environ.setdefault("ATEN_CPU_CAPABILITY", instructions)
    return getattr(import_module(f"{__name__}.inference.{_PLACES[name]}"), name)
