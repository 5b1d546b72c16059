"""The comparison as a table for a terminal."""

from pathlib import Path

import pandas as pd

from stages import cli

_COLUMNS = {
    "model": "model",
    "parameters": "parameters",
    "train_accuracy": "train %",
    "val_accuracy": "val %",
    "test_accuracy": "test %",
    "test_accuracy_low": "from",
    "test_accuracy_high": "to",
    "generalization_gap": "gap",
    "brief_test_accuracy": "brief %",
}


def main(numbers: Path, pictures: Path) -> None:
    """Print the comparison of the models and say where the plots are."""
    table = pd.read_csv(numbers)
    met = table[["meets_accuracy_target", "meets_epochs_target", "meets_parameters_target"]].sum(axis=1)
    shown = table[list(_COLUMNS)].rename(columns=_COLUMNS).assign(targets=met.map("{} of 3".format))
    print(
        shown.to_string(index=False, float_format="{:.2f}".format, na_rep="-", formatters={"parameters": "{:,}".format})
    )
    print(f"\nThe table with its analysis: {numbers.with_suffix('.md')}")
    print(f"The plots: {pictures}/, or all of them as one page: dvc plots show")


if __name__ == "__main__":
    cli.run(main)
