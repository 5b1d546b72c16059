"""What a stage of ``dvc.yaml`` follows from, read when it starts and again when it ends.

DVC hashes a stage's dependencies when the stage has ended. What is edited in between would be recorded as what ran,
and the run cache would give it back for ever.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import digest
from mnist_cnn.common.yaml import READ, parse_yaml, read_yaml

# Where settings are that DVC is told no other file of, and the values of templates.
_PARAMS = Path("params.yaml")


class StageInputs:
    """The dependencies and settings that ``dvc.yaml`` names for a stage, as they were when this was made.

    Args:
        stage: as DVC names it to the stage's command, in the environment's ``DVC_STAGE``: ``train@model_1``, perhaps
            with a file and a colon in front.

    Raises:
        InputError: no pipeline, or more than one, has such a stage, or its entry has other templates than ``${key}``
            and ``${data}``.
    """

    def __init__(self, stage: str) -> None:
        # The file is as seen from where DVC was called, which the stage is not told.
        self.name = stage.rpartition(":")[2]
        name, _, key = self.name.partition("@")
        declared, values = _entry(name), {"key": key}
        if "${data}" in str(declared):
            values["data"] = str(_value(read_yaml(_PARAMS), "data"))
        self._paths = [Path(_filled(path, values)) for path in declared.get("deps", [])]
        self._keys = [(Path(file), _filled(name, values)) for file, name in _params(declared.get("params", []))]
        self._before, self._written = self._read(), self._times()

    @property
    def paths(self) -> list[Path]:
        """The files and folders."""
        return self._paths

    @property
    def fingerprint(self) -> str:
        """A name for all of it: 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self._before, default=str).encode()).hexdigest()

    def check_unchanged(self) -> None:
        """Raises InputError where something has changed, or was changed back, with the names of files and settings."""
        after = self._read()
        changed = _differing(self._before, after)
        # Of what was changed back the stage may have read what was there between.
        changed += _differing(self._written, self._times())
        for file, content in READ:
            found = self._settings_in(file, content)
            changed += _differing({name: self._before[name] for name in found if name in self._before}, found)
        if changed:
            raise InputError(
                f"{self.name}: {', '.join(dict.fromkeys(changed))} changed while it ran; its result is of neither "
                "state: run it again"
            )

    def written_by_the_stage(self) -> None:
        """To be called when the stage itself has given its inputs another time."""
        self._written = self._times()

    def _times(self) -> dict[str, tuple[int, int]]:
        """When the files were written, and which they are, by their path."""
        found = {file.as_posix(): file.stat() for file in self._files() if file.exists()}
        return {name: (stat.st_mtime_ns, stat.st_ino) for name, stat in found.items()}

    def _files(self) -> list[Path]:
        ignored = ignored_by_dvc(Path())
        return [file for path in self._paths for file in _files(path, ignored)]

    def _read(self) -> dict[str, Any]:
        """Digests of files by their path, settings by their full name."""
        read = {file: read_yaml(file) for file, _ in self._keys}
        settings = (self._settings_in(file, content) for file, content in read.items())
        digests = {file.as_posix(): digest(file) if file.exists() else None for file in self._files()}
        return digests | {name: value for found in settings for name, value in found.items()}

    def _settings_in(self, file: Path, content: Any) -> dict[str, Any]:  # noqa: ANN401
        """The stage's settings in a file's content, by their full name; none where it has none from that file."""
        keys = [key for settings, key in self._keys if settings == file]
        leaves = (leaf for key in keys for leaf in _leaves(_value(content, key), f"{file}: {key}"))
        return dict(leaves)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names whose values differ, also of those that one of the two does not have."""
    missing = object()
    return [name for name in {**before, **after} if before.get(name, missing) != after.get(name, missing)]


def _entry(name: str) -> dict[str, Any]:
    """What the pipeline of the working folder, or of a folder in it, says of a stage, or of each of its kind."""
    pipelines = [file for file in (Path("dvc.yaml"), *sorted(Path().glob("[!.]*/dvc.yaml"))) if file.exists()]
    found = [stages[name] for file in pipelines if name in (stages := _stages(file))]
    if len(found) != 1:
        raise InputError(f"{' and '.join(map(str, pipelines))}: {len(found)} stages are called {name}, not one")
    entry: dict[str, Any] = found[0].get("do", found[0])
    return entry


def _stages(pipeline: Path) -> dict[str, Any]:
    stages: dict[str, Any] | None = parse_yaml(pipeline.read_text(encoding="utf-8"), pipeline).get("stages")
    return stages or {}


def _filled(text: str, values: Mapping[str, str]) -> str:
    """A text with the values of its templates: the stage's ``key``, where it is one of several, and the ``data``."""
    filled = text
    for name, value in values.items():
        filled = filled.replace(f"${{{name}}}", value)
    if "${" in filled:
        raise InputError(f"dvc.yaml: {text}: only ${{key}} and ${{data}} are known here")
    return filled


def _params(declared: list[str | dict[str, list[str]]]) -> Iterator[tuple[str, str]]:
    """Files and the settings in them that a stage names."""
    for item in declared:
        if isinstance(item, str):
            yield str(_PARAMS), item
        else:
            yield from ((file, name) for file, names in item.items() for name in names)


def _value(content: Any, key: str) -> Any:  # noqa: ANN401
    """The value at a dotted key, None where there is none."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _leaves(content: Any, name: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """The single settings in a section, each with its full name."""
    if not isinstance(content, dict):
        yield name, content
        return
    for key, value in content.items():
        yield from _leaves(value, f"{name}.{key}")


def ignored_by_dvc(root: Path) -> GitIgnoreSpec:
    """What DVC does not count into a folder below ``root``."""
    file = root / ".dvcignore"
    return GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8").splitlines() if file.exists() else [])


def _files(path: Path, ignored: GitIgnoreSpec) -> list[Path]:
    """A file, or those in a folder that DVC counts; all in order."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and not ignored.match_file(file.as_posix()))
