"""Networks computed by C kernels.

The rest of the library knows three calls: ``supports``, ``compile`` and ``rounding``.
"""

from mnist_cnn.engine.native.build import rounding
from mnist_cnn.engine.native.network import NativeNetwork, compile, supports

__all__ = ["NativeNetwork", "compile", "rounding", "supports"]
