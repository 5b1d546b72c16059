"""Which Pythons and machines the project runs on: those that all of its packages have wheels for.

A Python that is too old can read this file, to say so.
"""

import os
import platform
import sys

# As in pyproject.toml.
OLDEST, NEWEST, EXCLUDED = (3, 10), (3, 14), (3, 14, 1)
# By system, as Python calls it: its processors, and what must be how new.
MACHINES = {"Linux": ("x86_64", "aarch64"), "Darwin": ("arm64",), "Windows": ("AMD64",)}
SYSTEMS = {"Linux": ("glibc", (2, 28)), "Darwin": ("macOS", (14,)), "Windows": ("", ())}


def refusal() -> str:
    """Why the project does not run here, in one line; empty where it does."""
    version = sys.version_info[:3]
    if not (OLDEST <= version[:2] <= NEWEST and version != EXCLUDED and sys.implementation.name == "cpython"):
        found = f"{platform.python_implementation()} {platform.python_version()}"
        allowed = f"CPython {_dotted(OLDEST)} to {_dotted(NEWEST)}, without {_dotted(EXCLUDED)}"
        return f"{sys.executable}: {found} is not allowed; allowed: {allowed} (make setup PYTHON=python3.x)"
    system, machine = platform.system(), platform.machine()
    if machine not in MACHINES.get(system, ()) or sys.maxsize < 1 << 32:
        bits = sys.maxsize.bit_length() + 1
        allowed = "; ".join(f"{name}: {', '.join(machines)}" for name, machines in MACHINES.items())
        return f"{system} on {machine} with {bits} bits is not allowed; allowed, with 64 bits: {allowed}"
    name, oldest = SYSTEMS[system]
    there = _version(system)
    if not there >= oldest:
        found = f"with {name} {_dotted(there)}" if there else f"without {name}"
        return f"{system} {found} is not allowed; allowed: {name} {_dotted(oldest)} or newer"
    return ""


def vector_instructions(processors: str = "/proc/cpuinfo") -> str:
    """What PyTorch's variable ATEN_CPU_CAPABILITY should be for results to have the same bytes on all processors.

    It is ``avx2`` on x86-64, ``default`` on a processor that is known not to have that, empty elsewhere.

    Args:
        processors: the file in which Linux describes them.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return ""
    try:
        with open(processors) as file:
            flags = next((set(line.split()) for line in file if line.startswith("flags")), {"avx2", "fma"})
    except OSError:
        return "avx2"
    return "avx2" if {"avx2", "fma"} <= flags else "default"


def _version(system: str) -> tuple:
    """How new the system's part of ``SYSTEMS`` is; empty where it has none."""
    try:
        text = platform.mac_ver()[0] if system == "Darwin" else (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[1]
        return tuple(int(number) for number in text.split("."))
    except (AttributeError, IndexError, OSError, ValueError):
        return ()


def _dotted(version: tuple) -> str:
    return ".".join(map(str, version))


if __name__ == "__main__":
    sys.exit(f"error: {refusal()}" if refusal() else 0)
