"""The sections of ``params.yaml``."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.mnist import IMAGE_SIDE, TRAIN_IMAGES
from mnist_cnn.models import MODELS
from mnist_cnn.settings.datasets import PUBLISHED, Custom, DataName, DataSet, data_set
from mnist_cnn.settings.robustness import Robustness
from mnist_cnn.settings.validation import Section, load_section, validate

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32)]


class Split(Section):
    """How a data set's training images become a training and a validation split."""

    method: Literal["last", "random", "stratified"]
    train: Count
    val: Count
    seed: Seed


class Splits(Section):
    """The split of each data set."""

    mnist: Split
    fashion_mnist: Split
    kmnist: Split
    custom: Split

    @model_validator(mode="after")
    def _fit(self) -> "Splits":
        for name in PUBLISHED:
            split: Split = getattr(self, name)
            if split.train + split.val > TRAIN_IMAGES:
                raise ValueError(
                    f"{name}: train + val is {split.train + split.val:,}; the training file holds {TRAIN_IMAGES:,} "
                    "images"
                )
        return self


class Train(Section):
    """What all training runs share."""

    seed: Seed
    device: Literal["auto", "cpu", "cuda", "mps"]
    engine: Literal["auto", "native", "torch"]
    precision: Literal["float32", "bfloat16"]

    @model_validator(mode="after")
    def _engine_has_precision(self) -> "Train":
        if self.engine != "torch" and self.precision != "float32":
            raise ValueError(
                f"precision: {self.precision!r} needs engine: torch; engine: {self.engine} computes in float32"
            )
        return self


class Augmentation(Section):
    """Bounds of the random affine change of a training image, each drawn uniformly; 0 switches it off."""

    rotation_deg: Annotated[float, Field(ge=0, le=180)]
    shift_px: Annotated[float, Field(ge=0, le=IMAGE_SIDE / 2)]
    scale_percent: Annotated[float, Field(ge=0, lt=100)]


class Recipe(Section):
    """How one model is trained."""

    epochs: Annotated[int, Field(ge=1, le=1000)]
    batch_size: Annotated[int, Field(ge=2, le=TRAIN_IMAGES)]
    schedule: Literal["constant", "one_cycle"]
    max_lr: Annotated[float, Field(gt=0, le=10)]
    warmup_fraction: Fraction
    momentum: Fraction
    weight_decay: Fraction
    adaptive_clipping: Annotated[float, Field(ge=0, le=1e6)]
    ema_decay: Fraction
    dropout: Fraction
    label_smoothing: Fraction
    deskew: bool
    tta: bool
    augmentation: Augmentation


class Evaluate(Section):
    """How a trained model is measured."""

    batch_size: Annotated[int, Field(ge=1, le=TRAIN_IMAGES)]
    calibration_bins: Annotated[int, Field(ge=1, le=1000)]


class Targets(Section):
    """What a model is to reach: all three make the overall target."""

    test_accuracy: Percent
    max_epochs: Count
    parameters_below: Count


class TargetsOfSets(Section):
    """The targets on each data set."""

    mnist: Targets
    fashion_mnist: Targets
    kmnist: Targets
    custom: Targets


class Report(Section):
    """What the report shows beside the measurements."""

    misclassified_shown: Annotated[int, Field(ge=1, le=1000)]
    augmented_digits: Annotated[int, Field(ge=1, le=40)]


class Params(Section):
    """All of ``params.yaml``."""

    # In the file, ``split`` and ``targets`` have an entry a data set; here they are those of the chosen one.
    data: DataName
    model: str
    splits: Annotated[Splits, Field(alias="split")]
    train: Train
    models: Annotated[dict[str, Recipe], Field(min_length=1)]
    evaluate: Evaluate
    robustness: Robustness
    targets_of_sets: Annotated[TargetsOfSets, Field(alias="targets")]
    report: Report
    custom: Custom

    @model_validator(mode="after")
    def _names_exist(self) -> "Params":
        for name in self.models:
            if name not in MODELS:
                raise ValueError(f"models.{name}: no such model; the models are {', '.join(MODELS)}")
        if self.model not in self.models:
            raise ValueError(f"model: {self.model!r} is not allowed; allowed: {', '.join(self.models)}")
        return self

    @property
    def data_set(self) -> DataSet:
        """What is said of the chosen data set."""
        return data_set(self.data, self.custom)

    @property
    def split(self) -> Split:
        """How the chosen data set is split."""
        split: Split = getattr(self.splits, self.data)
        return split

    @property
    def targets(self) -> Targets:
        """What models are to reach on the chosen data set."""
        targets: Targets = getattr(self.targets_of_sets, self.data)
        return targets

    def recipe(self, model: str) -> Recipe:
        """A model's recipe. Raises InputError where it has none."""
        if model not in self.models:
            raise InputError(f"no recipe for {model!r}; models has {', '.join(self.models)}")
        return self.models[model]


def load(path: Path) -> Params:
    """The settings in a YAML file. Raises InputError, one line a fault, as ``load_section`` does."""
    return load_section(Params, path)


def changed(recipe: Recipe, settings: dict[str, Any], where: str | Path) -> Recipe:
    """A recipe with some settings replaced. Raises InputError, each line with ``where`` in front."""
    return validate(Recipe, recipe.model_dump() | settings, where)
