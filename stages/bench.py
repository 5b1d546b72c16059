"""How fast training is, against the classical loop."""

import json
from pathlib import Path

from benchmark.compare import compare
from benchmark.table import render
from mnist_cnn.files import write_text
from stages import cli


def main(params: Path, raw: Path, parts: Path, repetitions: int, table: Path, numbers: Path) -> None:
    """Train every model by the classical loop, and by ``fit`` with each engine, in turns; write table and numbers."""
    result = compare(params, raw, parts, repetitions)
    write_text(numbers, json.dumps(result, indent=2, allow_nan=False) + "\n")
    write_text(table, render(result))
    print(f"{table}, {numbers}")


if __name__ == "__main__":
    cli.run(main)
