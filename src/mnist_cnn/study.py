"""Many seeds of each model: which trials there are, and their records."""

import json
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from mnist_cnn.errors import InputError
from mnist_cnn.files import write_text
from mnist_cnn.params import Params, Recipe, Study, changed

OWN, EQUAL, ABLATION = "own", "equal", "ablation"

# What ``trial.measure`` returns, and the ``fingerprint`` of what it was measured on.
Record: TypeAlias = dict[str, Any]


class Trial(NamedTuple):
    """What is to be trained; ``widths`` are the network's where they are not the model's own.

    Only what is ``tested`` sees the test set: recipes that compete for a decision do not.
    """

    model: str
    recipe: Recipe
    seed: int
    widths: tuple[int, ...] | None
    tested: bool


def plan(params: Params, study: Study) -> dict[str, Trial]:
    """The study's trials by name: ``own/model_6-1`` is model_6 by its own recipe with seed 1.

    ``own/…`` and ``equal/…``, by the recipe that ``study.equal`` names, are tested; ``ablation/<change>-1`` is not.
    """
    first = params.train.seed
    equal = params.models[study.equal.recipe]
    others = [model for model in study.seeds if params.models[model] != equal]
    recipes = [(OWN, model, params.models[model], study.seeds[model]) for model in study.seeds] + [
        (EQUAL, model, equal, min(study.seeds[model], study.equal.seeds)) for model in others
    ]
    trials = {}
    for kind, model, recipe, seeds in recipes:
        for seed in range(first, first + seeds):
            trials[f"{kind}/{model}-{seed}"] = Trial(model, recipe, seed, None, tested=True)
    ablation = study.ablation
    for name, change in ablation.changes.items():
        recipe = changed(params.models[ablation.model], change.recipe, f"ablation.changes.{name}.recipe")
        widths = tuple(change.widths) if change.widths else None
        for seed in range(first, first + ablation.seeds):
            trials[f"{ABLATION}/{name}-{seed}"] = Trial(ablation.model, recipe, seed, widths, tested=False)
    return trials


def load_record(folder: Path, name: str) -> Record | None:
    """The record of a trial; None where there is none, or not a whole one."""
    try:
        record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "fingerprint" in record else None


def load_records(folder: Path, trials: dict[str, Trial]) -> dict[str, Record]:
    """The records of all trials by name. Raises InputError where one is missing."""
    records = {name: load_record(folder, name) for name in trials}
    missing = [name for name, record in records.items() if record is None]
    if missing:
        raise InputError(f"{folder}: {', '.join(missing)}: no record; 'make study' makes it")
    return {name: record for name, record in records.items() if record is not None}


def save_record(folder: Path, name: str, record: Record) -> None:
    """Write the record of a trial, a line an entry."""
    lines = (f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in record.items())
    write_text(folder / f"{name}.json", "{\n" + ",\n".join(lines) + "\n}\n")


def remove_other_records(folder: Path, trials: dict[str, Trial]) -> None:
    """Delete the records of trials that are not, or no longer, of the study."""
    for file in folder.rglob("*.json"):
        if file.relative_to(folder).with_suffix("").as_posix() not in trials:
            file.unlink()
