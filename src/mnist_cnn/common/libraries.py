"""Which versions of other packages results follow from: of those whose arithmetic, or way to write, shows in them."""

from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mnist_cnn.common.errors import InputError

# What weights, splits and measurements follow from; the compiler of the kernels is a package, too.
COMPUTING = ("numpy", "pandas", "safetensors", "torch", "ziglang")
# What tables and figures follow from beside.
DRAWING = ("matplotlib", "pillow", "scipy")
# What exported files follow from beside.
EXPORTING = ("onnx", "onnx-ir", "onnxruntime", "onnxscript", "protobuf")


def pins(requirements: Path, packages: Collection[str]) -> str:
    """The lines of a requirements file that pin the packages, for whichever Python and platform they are.

    Raises:
        InputError: the file cannot be read, or does not pin one of them to one version.
    """
    found = [(line, pin) for line, pin in _pins(requirements) if canonicalize_name(pin.name) in packages]
    exact = {canonicalize_name(pin.name) for _, pin in found if _is_exact(pin)}
    loose = {canonicalize_name(pin.name) for _, pin in found if not _is_exact(pin)}
    if missing := [name for name in packages if name not in exact or name in loose]:
        raise InputError(f"{requirements}: has no exact version of {', '.join(missing)}")
    return "".join(f"{line}\n" for line, _ in found)


def check_installed(pinned: Path, packages: Collection[str] | None = None) -> None:
    """Raises InputError where a package, or one of some, is installed in another version than ``pinned``, a file, has.

    A package that is not installed is left to whoever needs it.
    """
    for _, pin in _pins(pinned):
        elsewhere = pin.marker and not pin.marker.evaluate()
        if elsewhere or (packages is not None and canonicalize_name(pin.name) not in packages):
            continue
        try:
            installed = version(pin.name)
        except PackageNotFoundError:
            continue
        if not pin.specifier.contains(installed, prereleases=True):
            raise InputError(
                f"{pin.name} {installed} is installed, and results are to be made with {pin.specifier}: 'make setup' "
                "installs that"
            )


def _is_exact(pin: Requirement) -> bool:
    return [part.operator for part in pin.specifier] == ["=="] and "*" not in str(pin.specifier)


def _pins(requirements: Path) -> Iterator[tuple[str, Requirement]]:
    """Each line of a file that pins a package, as it is and parsed."""
    try:
        lines = requirements.read_text(encoding="utf-8").splitlines()
        for line in map(str.strip, lines):
            if line and not line.startswith(("#", "-")):
                yield line, Requirement(line)
    except (OSError, UnicodeDecodeError, InvalidRequirement) as error:
        raise InputError(f"{requirements}: cannot be read ({' '.join(str(error).split())})") from None
