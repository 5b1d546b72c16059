"""Which digits, or what else the data set has, are in pictures, by a trained model."""

import glob
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnist_cnn import Classifier, load_model, read_digit
from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import write_text
from mnist_cnn.common.mnist import CLASSES
from mnist_cnn.inference.pictures import FORMATS, shown, suffixes

# Where the predictions of a folder go, unless the user names a file: into the working folder.
TABLE_OF_FOLDERS = Path("predictions.csv")
# The last ones have the probabilities of all classes by their place.
COLUMNS = ("file", "class", "probability", "second", "second_probability", *(f"p{place}" for place in range(CLASSES)))
_COLUMNS_BEFORE = ("file", "digit", *COLUMNS[2:])  # version 0.5
# Lines appear so many at a time.
_AT_A_TIME = 32
# Longer names do not widen the table.
_WIDEST_NAME = 60


class Prediction(NamedTuple):
    """A file, and the probabilities ``(10,)``, from 0 to 1, of the ten classes."""

    file: Path
    probabilities: NDArray[np.float64]

    @property
    def likeliest(self) -> tuple[int, int]:
        """The two likeliest classes, in this order."""
        first, second = np.argsort(-self.probabilities, kind="stable")[:2]
        return int(first), int(second)


def main(images: str, model: str, csv: str) -> None:
    """Print, a line an image, which class a trained model sees in it, how surely, and what else it could be.

    Whatever cannot be read is named. The others go on, and the status is 1.

    Args:
        images: files and folders, written as for a shell: names with spaces want quotes, and patterns stand for the
            files that they match. Of a folder, all images directly in it are taken.
        model: its name; empty for the one that params.yaml presents.
        csv: where predictions are written to as well; empty for predictions.csv in the working folder where a folder
            is among the images, and for no file otherwise. It replaces an earlier table of predictions alone.
    """
    words = _words(images)
    has_folder = any(map(os.path.isdir, words))
    table = Path(csv) if csv else TABLE_OF_FOLDERS if has_folder else None
    if table:
        _check_is_ours(table)
    faults = 0
    predictions: list[Prediction] = []
    files = list(_files(words))
    classify = load_model(model or None)
    names = [len(shown(file)) for file in files if isinstance(file, Path)]
    width = max([4, *(length for length in names if length <= _WIDEST_NAME)])
    if not classify.data.is_ink:
        print(
            f"Note: pictures are made into what MNIST has, which images of {classify.data.title} may not be",
            file=sys.stderr,
        )
    widest = max(map(len, ("second", *classify.classes)))
    if names:
        titles = "  ".join((f"{'class':>{widest}}", "probability", f"{'second':>{widest}}", "probability"))
        print(f"{'file':{width}}  {titles}  (by {classify.name})")
    for result in _predicted(classify, files):
        if isinstance(result, InputError):
            faults += 1
            print(f"error: {result}", file=sys.stderr, flush=True)
        else:
            predictions.append(result)
            print(_line(result, classify.classes, width, widest), flush=True)
    if table and predictions:
        _write(table, predictions, classify.classes)
    if faults:
        sys.exit(1)


def _words(images: str) -> list[str]:
    """The names in a line, and the files that match those which are patterns.

    Raises:
        InputError: there is none, or a quote is not closed.
    """
    try:
        words = shlex.split(images)
    except ValueError as error:
        raise InputError(f"IMAGES: {shown(images)}: {str(error).lower()}") from None
    if not words:
        raise InputError(
            "IMAGES: names no file and no folder; for instance: make predict IMAGES=\"a.png 'b c.png' d/\""
        )
    return [found for word in words for found in (not os.path.lexists(word) and sorted(glob.glob(word)) or [word])]


def _files(words: list[str]) -> Iterator[Path | InputError]:
    """The files that are meant, and in place of a folder without images what is wrong with it."""
    for word in words:
        try:
            yield from _images_in(Path(word)) if os.path.isdir(word) else [Path(word)]
        except OSError as error:
            yield InputError(f"{shown(word)}: {error.strerror}")


def _images_in(folder: Path) -> list[Path | InputError]:
    known = suffixes()
    found = [path for path in folder.iterdir() if path.suffix.lower() in known and not path.name.startswith(".")]
    return [*sorted(found)] or [InputError(f"{shown(folder)}: has no images; allowed: {', '.join(FORMATS)}")]


def _predicted(classify: Classifier, files: list[Path | InputError]) -> Iterator[Prediction | InputError]:
    """For each file its prediction, or what is wrong with it, in their order."""
    remaining = iter(files)
    while some := list(islice(remaining, _AT_A_TIME)):
        read = list(map(_digit, some))
        digits = [digit for digit in read if not isinstance(digit, InputError)]
        rows = iter(classify(np.stack(digits)) if digits else ())
        for file, digit in zip(some, read, strict=True):
            if isinstance(digit, InputError):
                yield digit
            elif isinstance(file, Path):
                yield Prediction(file, next(rows))


def _digit(file: Path | InputError) -> NDArray[np.uint8] | InputError:
    if isinstance(file, InputError):
        return file
    try:
        return read_digit(file)
    except InputError as error:
        return error


def _line(prediction: Prediction, classes: Sequence[str], width: int, widest: int) -> str:
    """A row of the table on the terminal, in columns of so many characters: names of files, names of classes."""
    likeliest = (
        f"{classes[place]:>{widest}}  {100 * prediction.probabilities[place]:>9.2f} %" for place in prediction.likeliest
    )
    return f"{shown(prediction.file):{width}}  {'  '.join(likeliest)}"


def _check_is_ours(table: Path) -> None:
    """Raises InputError where a file is in the way that this program has not written."""
    if not os.path.lexists(table):
        return
    try:
        with table.open(encoding="utf-8") as file:
            head = file.readline() if table.is_file() else ""
    except (OSError, UnicodeDecodeError):
        head = ""
    if head.rstrip("\n") not in (",".join(COLUMNS), ",".join(_COLUMNS_BEFORE)):
        raise InputError(f"{shown(table)}: is there, and no table of predictions: CSV=… names another file")


def _write(table: Path, predictions: list[Prediction], classes: Sequence[str]) -> None:
    rows = []
    for file, probabilities in predictions:
        first, second = Prediction(file, probabilities).likeliest
        rounded = [f"{probability:.6f}" for probability in probabilities]
        rows.append([shown(file), classes[first], rounded[first], classes[second], rounded[second], *rounded])
    is_there = table.exists()
    try:
        write_text(table, pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False, lineterminator="\n"))
    except OSError as error:
        raise InputError(f"{shown(table)}: cannot be written ({error.strerror})") from None
    print(f"\n{'Replaced' if is_there else 'Wrote'} {shown(table)}")


if __name__ == "__main__":
    cli.run(main)
