"""Which versions of other packages results follow from: of those whose arithmetic, or way to write, shows in them."""

from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mnist_cnn.common.errors import InputError

# What weights, splits and measurements follow from; the compiler of the kernels is a package, too.
COMPUTING = ("numpy", "safetensors", "torch", "torchvision", "ziglang")
# What tables and figures follow from beside.
DRAWING = ("matplotlib", "pandas", "pillow", "scipy")


def pins(requirements: Path, packages: Collection[str]) -> str:
    """The lines of a requirements file that pin the packages, for whichever Python and platform they are.

    Raises:
        InputError: the file cannot be read, or does not pin one of them to one version.
    """
    found = [(line, pin) for line, pin in _pins(requirements) if canonicalize_name(pin.name) in packages]
    missing = [name for name in packages if name not in {canonicalize_name(pin.name) for _, pin in found}]
    if missing:
        raise InputError(f"{requirements}: has no pinned version of {', '.join(missing)}")
    return "".join(f"{line}\n" for line, _ in found)


def check_installed(pinned: Path) -> None:
    """Raises InputError where a package is installed in another version than ``pinned``, a file of pins, has.

    A package that is not installed is left to whoever needs it.
    """
    for _, pin in _pins(pinned):
        if pin.marker and not pin.marker.evaluate():
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


def _pins(requirements: Path) -> Iterator[tuple[str, Requirement]]:
    """Each line of a file that pins a package, as it is and parsed."""
    try:
        lines = requirements.read_text(encoding="utf-8").splitlines()
        for line in map(str.strip, lines):
            if line and not line.startswith(("#", "-")):
                yield line, Requirement(line)
    except (OSError, UnicodeDecodeError, InvalidRequirement) as error:
        raise InputError(f"{requirements}: cannot be read ({' '.join(str(error).split())})") from None
