"""``params.yaml`` as typed, frozen settings; whatever is wrong in it is refused by its full path."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mnist_cnn.errors import InputError
from mnist_cnn.models import MODELS

TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32)]
_Kind = TypeVar("_Kind", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Split(_Section):
    """How MNIST's 60,000 training images become a training and a validation part."""

    method: Literal["last", "random", "stratified"]
    train: Count
    val: Count
    seed: Seed

    @model_validator(mode="after")
    def _fits(self) -> "Split":
        if self.train + self.val > TRAIN_IMAGES:
            raise ValueError(
                f"train + val is {self.train + self.val:,}; the training file holds {TRAIN_IMAGES:,} images"
            )
        return self


class Train(_Section):
    """What all training runs share."""

    seed: Seed
    device: Literal["auto", "cpu", "cuda", "mps"]
    engine: Literal["auto", "native", "torch"]
    precision: Literal["float32", "bfloat16"]

    @model_validator(mode="after")
    def _engine_computes_so(self) -> "Train":
        if self.engine != "torch" and self.precision != "float32":
            raise ValueError(
                f"precision: {self.precision!r} needs engine: torch; engine: {self.engine} computes in float32"
            )
        return self


class Augmentation(_Section):
    """Bounds of the random affine change of a training image, each drawn uniformly; 0 switches it off."""

    rotation_deg: Annotated[float, Field(ge=0, le=180)]
    shift_px: Annotated[float, Field(ge=0, le=14)]
    scale_percent: Annotated[float, Field(ge=0, lt=100)]


class Recipe(_Section):
    """How one model is trained."""

    epochs: Annotated[int, Field(ge=1, le=1000)]
    batch_size: Annotated[int, Field(ge=2, le=TRAIN_IMAGES)]
    schedule: Literal["constant", "one_cycle"]
    max_lr: Annotated[float, Field(gt=0, le=10)]
    warmup_share: Share
    momentum: Share
    weight_decay: Share
    clip_ratio: Annotated[float, Field(ge=0, le=1e6)]
    weight_average: Share
    dropout: Share
    label_smoothing: Share
    deslant: bool
    views: Literal[1, 5]
    augmentation: Augmentation


class Evaluate(_Section):
    """How a trained model is measured."""

    batch_size: Count
    calibration_bins: Annotated[int, Field(ge=1, le=1000)]


class Targets(_Section):
    """What a model is to reach: all three make the overall target."""

    test_accuracy: Annotated[float, Field(ge=0, le=100)]
    max_epochs: Count
    parameters_below: Count


class Step(_Section):
    """A model's place in the story, and what the brief reports of it (best epoch of one run, in percent)."""

    target: str
    brief_parameters: str | None
    brief_train_accuracy: Annotated[float, Field(ge=0, le=100)] | None
    brief_test_accuracy: Annotated[float, Field(ge=0, le=100)] | None


class Report(_Section):
    """What the report shows beside the measurements."""

    misread_shown: Count
    augmented_digits: Count
    story: dict[str, Step]


class Params(_Section):
    """All of ``params.yaml``."""

    model: str
    split: Split
    train: Train
    models: Annotated[dict[str, Recipe], Field(min_length=1)]
    evaluate: Evaluate
    targets: Targets
    report: Report

    @model_validator(mode="after")
    def _names_exist(self) -> "Params":
        for name in self.models:
            if name not in MODELS:
                raise ValueError(f"models.{name}: no such model; the models are {', '.join(MODELS)}")
        if self.model not in self.models:
            raise ValueError(f"model: {self.model!r} is not allowed; allowed: {', '.join(self.models)}")
        for name in self.report.story:
            if name not in MODELS:
                raise ValueError(f"report.story.{name}: no such model; the models are {', '.join(MODELS)}")
        return self


class Change(_Section):
    """What a trial of the ablation does otherwise: settings of the recipe, channels of the network, or both."""

    recipe: dict[str, Any] = Field(default_factory=dict)
    widths: Annotated[list[Count], Field(min_length=1)] | None = None


class Ablation(_Section):
    """Changes of one model and its recipe, by name: each is tried alone, and validation is the measure."""

    model: str
    seeds: Count
    changes: Annotated[dict[Annotated[str, Field(pattern=r"^\w+$")], Change], Field(min_length=1)]


class Equal(_Section):
    """The model by whose recipe all are trained that have another, and with how many of their seeds."""

    recipe: str
    seeds: Count


class Study(_Section):
    """How many seeds each model is trained with: ``train.seed`` and those that follow it."""

    seeds: Annotated[dict[str, Count], Field(min_length=1)]
    equal: Equal
    ablation: Ablation


def load(path: Path) -> Params:
    """The settings in a YAML file.

    Raises:
        InputError: the file cannot be read, or holds an unknown key, a wrong type or a value out of range;
            one line a fault, with its full path, its value and what is allowed.
    """
    return _validated(Params, _content(path), path)


def load_study(path: Path, params: Params) -> Study:
    """The settings of the study in a YAML file, about the models of ``params``. Raises as ``load`` does."""
    study = _validated(Study, _content(path), path)
    for where, name in [("seeds", name) for name in study.seeds] + [
        ("equal.recipe", study.equal.recipe),
        ("ablation.model", study.ablation.model),
    ]:
        if name not in params.models:
            raise InputError(f"{path}: {where}: {name!r} is not allowed; allowed: {', '.join(params.models)}")
    model, seeds = study.ablation.model, study.ablation.seeds
    if study.seeds.get(model, 0) < seeds:
        has = f"seeds has {study.seeds.get(model, 0)} of {model}"
        raise InputError(
            f"{path}: ablation.seeds: {seeds} is not allowed: {has}, and each change is compared with them"
        )
    for name, change in study.ablation.changes.items():
        changed(params.models[model], change.recipe, f"{path}: ablation.changes.{name}.recipe")
    return study


def changed(recipe: Recipe, settings: dict[str, Any], where: str | Path) -> Recipe:
    """A recipe with some settings replaced. Raises InputError, each line with ``where`` in front."""
    return _validated(Recipe, recipe.model_dump() | settings, where)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except (yaml.YAMLError, ValueError) as error:  # a date that is none is a ValueError
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: should hold a mapping of sections, not {content!r}")
    return content


def _validated(kind: type[_Kind], content: dict[str, Any], where: str | Path) -> _Kind:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = [_line(dict(fault), kind) for fault in error.errors(include_url=False)]
        raise InputError("\n".join(f"{where}: {fault}" for fault in faults)) from None


def _line(fault: dict, kind: type[BaseModel]) -> str:
    """One fault as pydantic tells it, in one line: path, value, what is allowed."""
    where = ".".join(str(part) for part in fault["loc"])
    value, problem = fault["input"], fault["type"]
    if problem == "extra_forbidden":
        return f"{where}: unknown setting (value {value!r}); allowed here: {_allowed_keys(kind, fault['loc'][:-1])}"
    if problem == "missing":
        return f"{where}: missing"
    if problem == "value_error":
        message = str(fault["ctx"]["error"])
        return f"{where}: {message}" if where else message
    number = _as_number(value, problem)
    hint = "" if number is None else f"; YAML reads {value} as text: write {number!r}"
    return f"{where}: {value!r} is not allowed: {fault['msg'].lower()}{hint}"


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
        annotation = section.model_fields[str(part)].annotation
        if get_origin(annotation) is dict:
            next(parts, None)  # the name of one of its values
            annotation = get_args(annotation)[1]
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        section = annotation
    return ", ".join(section.model_fields)
