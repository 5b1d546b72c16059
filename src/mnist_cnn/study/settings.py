"""``study/params.yaml`` as typed, frozen settings."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mnist_cnn.common.errors import InputError
from mnist_cnn.settings.params import Count, Params, changed
from mnist_cnn.settings.validation import Section, load_section


class Change(Section):
    """What a trial of the ablation does otherwise: settings of the recipe, channels of the network, or both."""

    recipe: dict[str, Any] = Field(default_factory=dict)
    widths: Annotated[list[Count], Field(min_length=1)] | None = None


class Ablation(Section):
    """Changes of one model and its recipe, by name: each is tried alone, and validation is the measure."""

    model: str
    seeds: Count
    changes: Annotated[dict[Annotated[str, Field(pattern=r"^\w+$")], Change], Field(min_length=1)]


class Shared(Section):
    """The model whose recipe also trains all models that have another, and with how many of their seeds."""

    recipe: str
    seeds: Count


class Study(Section):
    """How many seeds each model is trained with: ``train.seed`` and those that follow it."""

    seeds: Annotated[dict[str, Count], Field(min_length=1)]
    shared: Shared
    ablation: Ablation


def load_study(path: Path, params: Params) -> Study:
    """The settings of the study in a YAML file, about the models of ``params``. Raises as ``load_section`` does."""
    study = load_section(Study, path)
    for where, name in [("seeds", name) for name in study.seeds] + [
        ("shared.recipe", study.shared.recipe),
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
