"""Looks at the test set: each is declared beforehand, by an entry in a file that lists them all.

The test set guides no choice. So a model is measured on it only where somebody has asked for that and said why, and
what was asked can be counted.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mnist_cnn import models
from mnist_cnn.common.source import without_comments
from mnist_cnn.data.images import STATISTICS
from mnist_cnn.settings.datasets import DataName, recorded_images
from mnist_cnn.settings.params import Params
from mnist_cnn.settings.validation import Section, load_section

Digest = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class Look(Section):
    """One look at the test set.

    ``commit`` is where it was made, ``data`` the data set; ``seen`` and ``followed`` are filled in afterwards.
    ``models`` are those that were measured, each with the ``recipe_digest`` that it had; looks before version 0.4 have
    none.
    """

    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    commit: str
    data: DataName = "mnist"
    why: str
    seen: str = ""
    followed: str = ""
    models: dict[str, Digest] = {}


class Looks(Section):
    """All looks at the test set, the oldest first."""

    looks: list[Look]


def load_looks(path: Path) -> list[Look]:
    """The looks in a YAML file, the oldest first. Raises InputError, one line a fault, as ``load_section`` does."""
    return load_section(Looks, path).looks


def recipe_digest(model: str, params: Params, splits: Path) -> str:
    """A name for what was chosen about a model: images, recipe, seed, split, rounding, and the model's own code.

    It has 16 hexadecimal digits. Other code does not count, so that a cleaner one needs no look: who tries ideas in
    code looks at validation alone, and declares the look when all is chosen.

    Args:
        splits: the folder with the splits' statistics, which tell other images from MNIST's.

    Raises:
        InputError: the model has no recipe; or images are not MNIST's, and the statistics are missing or damaged.
    """
    recipe = params.recipe(model)
    code = Path(models.__file__).with_name(f"{model}.py").read_text(encoding="utf-8")
    chosen = [recipe.model_dump(), params.train.seed, params.split.model_dump(), without_comments(code)]
    if params.data != "mnist":  # the first looks, at MNIST, were declared when there was no other data set
        chosen.append(recorded_images(splits / STATISTICS))
    computed = (params.train.engine == "torch", params.train.precision)
    if computed != (False, "float32"):  # all looks so far were at models by the kernels where they can, in float32
        chosen.append(computed)
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def is_declared(model: str, digest: str, looks: Sequence[Look]) -> bool:
    """Whether a look at a model, as it is chosen now, is among ``looks``."""
    return any(look.models.get(model) == digest for look in looks)
