"""The comparison as a table for a terminal."""

from pathlib import Path

import pandas as pd

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from mnist_cnn.evaluation.metrics import TARGETS
from mnist_cnn.settings.params import load

_COLUMNS = {
    "model": "model",
    "parameters": "parameters",
    "train_accuracy": "train %",
    "val_accuracy": "val %",
    "test_accuracy": "test %",
    "test_accuracy_low": "from",
    "test_accuracy_high": "to",
    "reference_test_accuracy": "reference %",
}


def main(params: Path, numbers: Path, pictures: Path) -> None:
    """Print the comparison of the models and say where the plots are.

    Args:
        params: the settings, which name the data set.
        numbers: the comparison as CSV.
        pictures: the folder of figures, to be named.
    """
    try:
        table = pd.read_csv(numbers)
        met, shown = table[list(TARGETS)].eq(True).sum(axis=1), table[list(_COLUMNS)].astype({"parameters": int})
    except (ValueError, KeyError) as error:
        fault = " ".join(str(error).split())
        raise InputError(f"{numbers}: cannot be read ({fault}); 'dvc repro' restores it") from None
    print(f"{load(params).data_set.title}:")
    shown = shown.rename(columns=_COLUMNS).assign(targets=met.map(f"{{}} of {len(TARGETS)}".format))
    print(
        shown.to_string(index=False, float_format="{:.2f}".format, na_rep="-", formatters={"parameters": "{:,}".format})
    )
    print(f"\nThe table with its analysis: {numbers.with_suffix('.md')}")
    print(f"The plots: {pictures}/, or all of them as one page: dvc plots show")


if __name__ == "__main__":
    cli.run(main)
