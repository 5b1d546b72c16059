"""The data sets that the pipeline knows: what they are called, what their classes are, and what is said of them."""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import Field, model_validator

from mnist_cnn.common.mnist import CLASSES
from mnist_cnn.common.sealed import read_sealed
from mnist_cnn.settings.validation import Section

DataName: TypeAlias = Literal["mnist", "fashion_mnist", "kmnist", "custom"]


class DataSet(NamedTuple):
    """What texts and figures say of a data set.

    Attributes:
        title: its name.
        classes: their names by label; fewer than the networks have outputs where there are no such images.
        images: what an image shows, in the plural.
        about: where its images come from, in sentences; empty where nothing is known.
        source: who made it, and where that is described.
        is_ink: whether images are of writing, which other pictures of writing can be made to look like.
    """

    title: str
    classes: tuple[str, ...]
    images: str
    about: str
    source: str
    is_ink: bool

    def label(self, number: int) -> str:
        """The name of a class, also of one that is none: networks have ten outputs, and may predict any."""
        return self.classes[number] if number < len(self.classes) else f"unnamed {number}"

    @property
    def labels(self) -> list[str]:
        """The names of all outputs of a network."""
        return [self.label(number) for number in range(CLASSES)]


PUBLISHED = {
    "mnist": DataSet(
        title="MNIST",
        classes=tuple("0123456789"),
        images="handwritten digits",
        about="The digits were written by employees of the United States Census Bureau and by high-school students "
        "around 1990; those who wrote the test images wrote none of the others. Other ways of writing, such as a 1 "
        "with a long upstroke or a 7 with a bar, are rare.",
        source="Y. LeCun, C. Cortes, C. J. C. Burges, 1998",
        is_ink=True,
    ),
    "fashion_mnist": DataSet(
        title="Fashion-MNIST",
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        images="articles of clothing",
        about="The images are an online shop's photographs of its articles, made small and grey.",
        source="H. Xiao, K. Rasul, R. Vollgraf, 2017, https://arxiv.org/abs/1708.07747",
        is_ink=False,
    ),
    "kmnist": DataSet(
        title="KMNIST",
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        images="handwritten hiragana",
        about="The characters are from Japanese books printed from woodblocks in the 18th and 19th century and before; "
        "each class has several ways of writing one syllable.",
        source="T. Clanuwat and others, 2018, https://arxiv.org/abs/1812.01718",
        is_ink=True,
    ),
}


class Custom(Section):
    """What is said of the user's own images; see ``DataSet``."""

    title: Annotated[str, Field(min_length=1, max_length=60)]
    images: Annotated[str, Field(min_length=1, max_length=60)]
    classes: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=20)]], Field(min_length=2, max_length=CLASSES)
    ]

    @model_validator(mode="after")
    def _is_text_for_pages(self) -> "Custom":
        for text in (self.title, self.images, *self.classes):
            if not text.isprintable() or not text.strip():
                raise ValueError(f"{text!r} is not allowed: text in one line")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: {', '.join(self.classes)}: each name may be there once")
        return self


def recorded_images(statistics: Path) -> dict[str, Any]:
    """Which images a file of statistics is of: ``data``, and the ``sums`` of their files; of MNIST ``data`` alone.

    Raises:
        InputError: the file is missing or damaged.
    """
    found = read_sealed(statistics, "'dvc checkout' or 'dvc repro split'")
    # What the split of MNIST records has not changed since there are other data sets, and so no result of it.
    return {"data": found.get("data", "mnist"), "sums": found.get("sums")}


def data_set(name: DataName, custom: Custom) -> DataSet:
    """What is said of a data set; of ``custom`` what the settings say."""
    if name == "custom":
        return DataSet(custom.title, tuple(custom.classes), custom.images, "", "", is_ink=False)
    return PUBLISHED[name]
