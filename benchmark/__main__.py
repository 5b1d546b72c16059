"""How fast training is, against the classical loop."""

import json
from pathlib import Path

from benchmark.compare import compare
from benchmark.table import headline, render
from mnist_cnn.common import cli
from mnist_cnn.common.files import write_text


def main(
    params: Path, raw: Path, splits: Path, repetitions: int, epochs: int, matrix: int, table: Path, numbers: Path
) -> None:
    """Train every model by the classical loop, and by ``fit`` with each engine, in turns; write table and numbers.

    A ratio's spread is over the repetitions. The way to the target is so many epochs long; a matrix multiplication so
    many wide tells what the machine can do.

    Args:
        params: the settings.
        raw: MNIST's four files.
        splits: the folder of the splits.
        repetitions: how often each is measured.
        epochs: the length of the way to the target.
        matrix: rows and columns of the matrices that are multiplied.
        table: written: the table, Markdown.
        numbers: written: the figures, JSON.
    """
    result = compare(params, raw, splits, repetitions, epochs, matrix)
    write_text(numbers, json.dumps(result, indent=2, allow_nan=False) + "\n")
    write_text(table, render(result))
    write_text(table.with_stem(f"{table.stem}_headline"), headline(result))
    print(f"{table}, {numbers}")


if __name__ == "__main__":
    cli.run(main)
