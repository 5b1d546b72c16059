"""What ``story.yaml`` says of the models."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from pydantic import model_validator

from mnist_cnn.models import MODELS
from mnist_cnn.settings.datasets import DataName
from mnist_cnn.settings.params import Percent
from mnist_cnn.settings.validation import Section, load_section


class StoryEntry(Section):
    """What a model is for, and the figures that the original programme reports of it (best epoch of one run)."""

    target: str
    reference_parameters: str | None
    reference_train_accuracy: Percent | None
    reference_test_accuracy: Percent | None


Story: TypeAlias = Mapping[str, StoryEntry]


class _File(Section):
    data: DataName
    models: dict[str, StoryEntry]

    @model_validator(mode="after")
    def _names_exist(self) -> "_File":
        for name in self.models:
            if name not in MODELS:
                raise ValueError(f"models.{name}: no such model; the models are {', '.join(MODELS)}")
        return self


def load_story(path: Path, data: DataName) -> Story:
    """The entries of a YAML file by the models' names; none where they are of another data set than ``data``.

    Raises:
        InputError: as ``load_section`` does.
    """
    found = load_section(_File, path)
    return found.models if found.data == data else {}
