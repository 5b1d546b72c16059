"""The records of trials, one JSON file each, and the fingerprints that tell whether one is still of this code."""

import hashlib
import json
import tokenize
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import digest
from mnist_cnn.common.sealed import read_sealed, write_sealed
from mnist_cnn.common.source import without_comments
from mnist_cnn.data.images import STATISTICS
from mnist_cnn.engine.execution import ExecutionConfig
from mnist_cnn.study.plan import Trial

# What ``trial.measure`` returns, and the ``fingerprint`` of what it was measured on.
Record: TypeAlias = dict[str, Any]

# What a trial runs, beside its model's own file: modules and packages of the library. Settings are not here: they count
# by their values. Nor is what decides which trials there are.
_CODE = (
    "common/mnist.py",
    "data",
    "engine",
    "evaluation/summary.py",
    "layers",
    "models/__init__.py",
    "models/_sources.py",
    "study/trial.py",
    "training",
)
_SOURCES = (".py", ".c")
# What tables need of a record, and of that of a trial which looks at the test set.
_MEASURED = ("epochs", "parameters", "train_accuracy", "val_accuracy")
_TESTED = ("test_images", "test_accuracy", "test_by_epoch", "misclassified")


def load_record(folder: Path, name: str) -> Record:
    """The record of a trial. Raises InputError where there is none, or it is not as it was written."""
    return read_sealed(folder / f"{name}.json", restored_by="'make study'")


def load_records(folder: Path, trials: Mapping[str, Trial]) -> dict[str, Record]:
    """The records of all trials by name.

    Raises:
        InputError: one is missing, damaged, of another version or of another trial; a line each.
    """
    records, faults = {}, []
    by_fingerprint: dict[object, str] = {}
    for name, trial in trials.items():
        try:
            records[name] = load_record(folder, name)
        except InputError as error:
            faults.append(str(error))
            continue
        wanted = _MEASURED + _TESTED if trial.tested else _MEASURED
        if missing := [key for key in wanted if key not in records[name]]:
            faults.append(f"{folder / name}.json: of another version (no {missing[0]}); 'make study' restores it")
        elif (first := by_fingerprint.setdefault(records[name].get("fingerprint"), name)) != name:
            faults.append(f"{folder / name}.json: is the record of {first}; 'make study' restores it")
    if faults:
        raise InputError("\n".join(faults))
    return records


def fingerprint_of_record(folder: Path, name: str) -> str | None:
    """What a trial's record was measured on; None where there is no record that could be used."""
    try:
        return str(load_record(folder, name).get("fingerprint"))
    except InputError:
        return None


def save_record(folder: Path, name: str, record: Record) -> None:
    """Write the record of a trial."""
    write_sealed(folder / f"{name}.json", record)


def remove_other_records(folder: Path, trials: Mapping[str, Trial]) -> None:
    """Delete all in the folder but the trials' records, such as those of trials that are no longer of the study."""
    names = {f"{name}.json" for name in trials}
    for file in folder.rglob("*"):
        if file.is_file() and file.relative_to(folder).as_posix() not in names:
            file.unlink()


def data_digest(splits: Path, computing: Path) -> str:
    """A name for the images in a folder of splits and the libraries' versions in a file. Raises as ``digest_of``."""
    images = [splits / f"{name}.safetensors" for name in ("train", "val", "test")]
    return digest_of([*images, splits / STATISTICS, computing])


def digest_of(files: list[Path]) -> str:
    """A name for the contents of files: 64 hexadecimal digits. Raises InputError where one is missing."""
    try:
        return hashlib.sha256(" ".join(map(digest, files)).encode()).hexdigest()
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be read ({error.strerror}); 'dvc repro split' restores it"
        ) from None


def fingerprint(trial: Trial, data: str, execution: ExecutionConfig) -> str:
    """A name for what a trial's result follows from: settings, code, and ``data``; 64 hexadecimal digits.

    The machine is not in it, nor are comments and docstrings of the Python code.

    Args:
        data: a name for the images and the libraries' versions, by ``digest_of``.
    """
    settings = {**trial._asdict(), "recipe": trial.recipe.model_dump()}
    computing = [execution.device.type, execution.engine, execution.precision]
    package = Path(__file__).resolve().parents[1]
    files = [file for name in (*_CODE, f"models/{trial.model}.py") for file in _files(package / name)]
    code = [_code(file) for file in files]
    return hashlib.sha256(json.dumps([settings, computing, code, data]).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    """A module, or the source files of a package."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.suffix in _SOURCES)


def _code(file: Path) -> str:
    """A source file's text; of Python without comments, unless it does not parse, in the middle of an edit."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        with suppress(SyntaxError, ValueError, tokenize.TokenError):
            return without_comments(text)
    return text
