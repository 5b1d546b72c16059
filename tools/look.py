"""Declare a look at the test set."""

import json
import subprocess
from datetime import date
from pathlib import Path

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import write_text
from mnist_cnn.evaluation.looks import is_declared, load_looks, recipe_digest
from mnist_cnn.settings.params import load


def main(params: Path, looks: Path, splits: Path, models: str, why: str) -> None:
    """Add a look at ``models``, names with spaces between them, to the file of looks; ``why`` goes into its table.

    Nothing is measured here: the pipeline does that, of the recipes as they are now.

    Args:
        params: the settings.
        looks: the file of looks; an entry is added.
        splits: the folder with the splits' statistics.
        models: names, with spaces between them.
        why: the reason, for the table.
    """
    settings, why = load(params), " ".join(why.split())
    if not models.split():
        raise InputError(f"MODELS: names no model; the models are {', '.join(settings.models)}")
    if not why:
        raise InputError("WHY: says nothing; a look at the test set has a reason, such as WHY='the recipe is chosen'")
    declared = load_looks(looks)
    digests = {name: recipe_digest(name, settings, splits) for name in models.split()}
    new = {name: digest for name, digest in digests.items() if not is_declared(name, digest, declared)}
    if not new:
        print(f"{looks} already declares a look at {' and '.join(digests)} as chosen now; nothing is added")
        return
    text = looks.read_text(encoding="utf-8").rstrip("\n")
    write_text(looks, f"{text}\n{_entry(settings.data, why, new)}")
    print(f"Look {len(declared) + 1} at the test set: {', '.join(new)}")
    print(f"Afterwards, write into {looks} what was seen, and what followed from it")


def _entry(data: str, why: str, models: dict[str, str]) -> str:
    """A look as the file lists it; texts in quotes, as JSON and YAML both read them."""
    fields = {
        "date": date.today().isoformat(),
        "commit": _commit(),
        "data": data,
        "why": why,
        "seen": "",
        "followed": "",
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    lines += ["models:", *(f'  {name}: "{digest}"' for name, digest in models.items())]
    return "".join(f"{'    ' if number else '  - '}{line}\n" for number, line in enumerate(lines))


def _commit() -> str:
    """The last commit, in short; what is looked at may not be in it yet."""
    shown = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], capture_output=True, encoding="utf-8")
    return f"after {shown.stdout.strip()}" if shown.returncode == 0 else ""


if __name__ == "__main__":
    cli.run(main)
