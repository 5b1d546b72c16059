"""Compiles kernels.c for this CPU, once, and loads it.

The compiler is clang from the optional package ``ziglang``: a pinned version that comes with the other packages. The
compiled library is kept in the virtual environment, or in the folder that ``MNIST_CNN_CACHE`` names. Its name has a
digest of all that it depends on, source, options, compiler and CPU, and one of its content.
"""

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import cache_folder, digest

_COMPILER = "ziglang"
_SOURCE = Path(__file__).with_name("kernels.c")
# -ffp-contract=fast: a * b + c is one instruction with one rounding, which is faster, and the same on every machine.
_OPTIONS = ["-O3", "-mcpu=native", "-ffp-contract=fast", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
if sys.platform == "linux":
    # The process that loads this has the few functions of the C library. To link them takes as long as to compile.
    _OPTIONS.append("-nostdlib")


@cache
def load() -> ctypes.CDLL:
    """The kernels, compiled now, in some seconds, unless this environment has them already.

    Raises:
        InputError: the kernels cannot be compiled here.
    """
    if missing := missing_compiler():
        raise InputError(missing)
    source = _SOURCE.read_text(encoding="utf-8")
    return ctypes.CDLL(str(_compiled(source) or _compile(source)))


def _compiled(source: str) -> Path | None:
    """The library that this environment has, if it is whole: its name ends with a digest of its content."""
    for library in sorted(cache_folder().glob(f"{_name(source)}-*.so")):
        if library.stem.endswith(f"-{_digest(library)}"):
            return library
        # Cut off, by a full disk for instance: to load it would end the process.
        library.unlink(missing_ok=True)
    return None


def _digest(library: Path) -> str:
    return digest(library)[:16]


def rounding() -> str:
    """Whether the kernels here have a fused multiply-add, which rounds once: it decides the last bits.

    Raises as ``load``.
    """
    return "with FMA" if load().fuses_multiply_add() else "without FMA"


def missing_compiler() -> str | None:
    """Why the kernels cannot be compiled here, or None."""
    try:
        version(_COMPILER)
    except PackageNotFoundError:
        return (
            f"the kernels need the package {_COMPILER}, which is not installed ('make setup' installs it); PyTorch's "
            "results differ in the last digits"
        )
    return None


def _name(source: str) -> str:
    """A name for all that the library depends on: source, options, compiler and CPU."""
    depends_on = (source, " ".join(_OPTIONS), version(_COMPILER), _processor())
    return f"kernels-{hashlib.sha256(chr(0).join(depends_on).encode()).hexdigest()[:16]}"


def _processor() -> str:
    """The CPU that ``-mcpu=native`` compiles for: machines may share an environment, but not a library."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _compile(source: str) -> Path:
    """Compile the kernels in a folder of their own, which also takes the compiler's cache; returns the library."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        output, copied = Path(scratch) / "kernels.so", Path(scratch) / _SOURCE.name
        # Of the text that the name is of, whatever an editor does meanwhile.
        copied.write_text(source, encoding="utf-8", newline="\n")
        command = [sys.executable, "-m", "ziglang", "cc", *_OPTIONS, str(copied), "-o", str(output)]
        environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(Path(scratch) / "zig")}
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace")
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0]
            raise InputError(
                f"the kernels could not be compiled for this CPU ({reason}); train.engine: torch does without them"
            )
        # Another process may compile at the same time. Each puts a complete file in place, in one step.
        return output.replace(folder / f"{_name(source)}-{_digest(output)}.so")
