"""Which modules of this repository a model imports: DVC follows no imports, so others are refused."""

import ast
import sys
from collections.abc import Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOT = _PACKAGE.parents[1]
# The stages of every model depend on this folder as a whole.
_FOLLOWED = _PACKAGE / "layers"


def not_followed(file: Path, package: str) -> list[str]:
    """The modules of this repository that a model's file imports though its stages do not depend on them.

    Imports of modules in ``layers`` are followed further. The code is read, not run: imports by computed names are not
    seen.

    Args:
        package: the name of the package that ``file`` lies in.

    Raises:
        SyntaxError: the file, or a module in ``layers`` that it imports, is not valid Python.
    """
    found, seen, todo = [], {file.resolve()}, [(file, package)]
    while todo:
        for name in _imported(*todo.pop()):
            imported = _file_of(name)
            if imported is None or imported in seen:
                continue
            seen.add(imported)
            if imported.is_relative_to(_FOLLOWED):
                is_package = imported.name == "__init__.py"
                todo.append((imported, name if is_package else name.rpartition(".")[0]))
            elif imported != _PACKAGE / "__init__.py":
                found.append(name)
    return found


def _imported(file: Path, package: str) -> Iterator[str]:
    """All that a file's imports may name: modules, their packages, and names in them."""
    for node in ast.walk(ast.parse(file.read_bytes(), file)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            steps = name.split(".")
            yield from (".".join(steps[:depth]) for depth in range(1, len(steps) + 1))


def _file_of(name: str) -> Path | None:
    """The file of a module of this repository; None for other modules, and names that are none."""
    top, *rest = name.split(".")
    spec = None if top in sys.stdlib_module_names else find_spec(top)
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        file = Path(spec.origin or "")
        return file.resolve() if file.suffix == ".py" and not rest and _is_ours(file) else None
    for folder in spec.submodule_search_locations:
        place = Path(folder).joinpath(*rest)
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file() and _is_ours(file):
                return file.resolve()
    return None


def _is_ours(file: Path) -> bool:
    """Not of the environment, which may lie in the repository, and not installed."""
    return file.resolve().is_relative_to(_ROOT) and not {"site-packages", "dist-packages"} & set(file.parts)
