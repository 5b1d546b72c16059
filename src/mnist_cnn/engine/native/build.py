"""kernels.c compiled for this processor, once, and loaded.

The compiler is clang, as the package ``ziglang`` brings it: the same pinned version everywhere, and nothing to
install beside Python. The package is optional. The library lies in the virtual environment, or in the folder that
``MNIST_CNN_CACHE`` names, and is named after all that it was made from.
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

_COMPILER = "ziglang"
_SOURCE = Path(__file__).with_name("kernels.c")
# Multiply and add in one rounding wherever the source says a * b + c: faster, and the same on every machine.
_OPTIONS = ("-O3", "-mcpu=native", "-ffp-contract=fast", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


@cache
def load() -> ctypes.CDLL:
    """The compiled kernels; compiled now if this environment does not have them yet (seconds).

    Raises:
        InputError: they cannot be compiled here.
    """
    if missing := missing_compiler():
        raise InputError(missing)
    library = _library_path()
    if not library.exists():
        _compile(library)
    return ctypes.CDLL(str(library))


def missing_compiler() -> str | None:
    """Why the kernels cannot be compiled here, or None."""
    try:
        version(_COMPILER)
    except PackageNotFoundError:
        return (
            f"the kernels need the package {_COMPILER}, which is not installed ('make setup' installs it); results by "
            "PyTorch differ in their last digits"
        )
    return None


def _library_path() -> Path:
    made_from = (_SOURCE.read_text(encoding="utf-8"), " ".join(_OPTIONS), version(_COMPILER), _processor())
    name = hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:16]
    folder = os.environ.get("MNIST_CNN_CACHE") or Path(sys.prefix) / "cache" / "mnist_cnn"
    return Path(folder) / f"kernels-{name}.so"


def _processor() -> str:
    """What ``native`` stands for, so that machines which share an environment do not share a library."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _compile(library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        made = Path(scratch) / library.name
        command = [sys.executable, "-m", "ziglang", "cc", *_OPTIONS, str(_SOURCE), "-o", str(made)]
        environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(Path(scratch) / "zig")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise InputError(
                f"the kernels could not be compiled for this processor ({done.stderr.strip().splitlines()[0]}); "
                "train.engine: torch does without them"
            )
        # In one step: several models may start to train at the same time.
        made.replace(library)
