"""YAML files checked against typed sections; each fault in a line with its full path, value and what is allowed."""

import math
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.yaml import read_yaml

_Kind = TypeVar("_Kind", bound=BaseModel)

_LONGEST_VALUE = 200

# Settings that have had another name, by that name. A file with an old one is told the new one.
RENAMED = {
    "deslant": "deskew",
    "views": "tta (1 view is false, 5 views are true)",
    "weight_average": "ema_decay",
    "clip_ratio": "adaptive_clipping",
    "warmup_share": "warmup_fraction",
    "misread_shown": "misclassified_shown",
    "brief_parameters": "reference_parameters",
    "brief_train_accuracy": "reference_train_accuracy",
    "brief_test_accuracy": "reference_test_accuracy",
    "equal": "shared",
    "story": "models, in story.yaml",
}


class Section(BaseModel):
    """A section of settings: strict about types, frozen, without unknown names."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        protected_namespaces=(),
        serialize_by_alias=True,
    )


def load_section(kind: type[_Kind], path: Path) -> _Kind:
    """A YAML file as a section.

    Raises:
        InputError: the file cannot be read, or holds an unknown key, a wrong type or a value out of range;
            one line a fault.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: should hold a mapping of sections, not {shortened(content)}")
    return validate(kind, content, path)


def validate(kind: type[_Kind], content: dict[str, Any], where: str | Path) -> _Kind:
    """``content`` as a section. Raises InputError, one line a fault, each with ``where`` in front."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = [_line(dict(fault), kind) for fault in error.errors(include_url=False)]
        raise InputError("\n".join(f"{where}: {fault}" for fault in faults)) from None


def _line(fault: dict, kind: type[BaseModel]) -> str:
    """One of pydantic's faults in one line."""
    where = ".".join(str(part) for part in fault["loc"])
    value, problem = fault["input"], fault["type"]
    if problem == "extra_forbidden":
        name = str(fault["loc"][-1])
        if name in RENAMED:
            return f"{where}: this setting is now called {RENAMED[name]}"
        allowed = _allowed_keys(kind, fault["loc"][:-1])
        return f"{where}: unknown setting (value {shortened(value)}); allowed here: {allowed}"
    if problem == "missing":
        return f"{where}: missing"
    if problem == "value_error":
        message = str(fault["ctx"]["error"])
        return f"{where}: {message}" if where else message
    number = _as_number(value, problem)
    hint = "" if number is None else f"; YAML reads {value} as text: write {number!r}"
    return f"{where}: {shortened(value)} is not allowed: {fault['msg'].lower()}{hint}"


def shortened(value: object) -> str:
    """A value as Python writes it, cut to what a line should have of it."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _as_number(value: object, problem: str) -> float | None:
    """The number that a text was meant to be, where the setting takes one of this kind."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if problem.startswith("int"):
        return int(number) if number.is_integer() else None
    return number if problem.startswith("float") else None


def _allowed_keys(section: type[BaseModel], path: tuple[int | str, ...]) -> str:
    """The settings of the section at a path below another."""
    parts = iter(path)
    for part in parts:
        annotation = _fields(section)[str(part)].annotation
        if get_origin(annotation) in (dict, list):
            next(parts, None)  # the name of one of its values, or its place
            annotation = get_args(annotation)[-1]
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        section = annotation
    return ", ".join(_fields(section))


def _fields(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """The settings of a section, by the names that they have in a file."""
    return {field.alias or name: field for name, field in section.model_fields.items()}
