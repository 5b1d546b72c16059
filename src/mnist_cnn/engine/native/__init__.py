"""Networks computed by C kernels. The rest of the library knows two calls: ``supports`` and ``compile``."""

from mnist_cnn.engine.native.network import NativeNetwork, compile, supports

__all__ = ["NativeNetwork", "compile", "supports"]
