"""One model, one recipe, one seed: trained, and measured after each epoch."""

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import nn

from mnist_cnn import metrics
from mnist_cnn.data import Images, Normalisation
from mnist_cnn.describe import parameter_count
from mnist_cnn.engine import Compute, choose_engine, evaluation_pass
from mnist_cnn.models import build
from mnist_cnn.study import Record, Trial
from mnist_cnn.training import fit
from mnist_cnn.views import for_use

# What a trial runs, beside its model's own file. Settings are not here: they count by their values. Nor is what decides
# which trials there are.
_CODE = (
    "augmentation.py",
    "data.py",
    "describe.py",
    "engine.py",
    "layers/**/*.py",
    "metrics.py",
    "models/__init__.py",
    "native/build.py",
    "native/kernels.c",
    "native/network.py",
    "runtime.py",
    "sources.py",
    "training.py",
    "trial.py",
    "views.py",
)

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def measure(
    trial: Trial, parts: dict[str, Images], normalisation: Normalisation, compute: Compute, say: Callable[[int], object]
) -> Record:
    """Train and measure, as the stages ``train`` and ``evaluate`` do: the same seed gives the same weights.

    Args:
        parts: ``train`` and ``val``, and ``test`` where the trial is tested.
        say: called after each epoch with its number.

    Returns what JSON can hold; accuracies are in percent, rounded to 4 decimals:
        ``parameters``, ``epochs`` and the ``engine`` that computed; ``train_accuracy``, ``val_accuracy`` and
        ``test_accuracy`` of the weights that the recipe delivers; ``val_accuracy_raw`` of the last step's;
        ``test_by_epoch``, a list for ``raw`` and one for ``delivered`` weights; ``misread``, the numbers of the test
        images that the delivered weights misread.
    """
    recipe = trial.recipe
    seen = {part: for_use(images, recipe) for part, images in parts.items()}
    torch.manual_seed(trial.seed)
    network = build(trial.model, recipe.dropout, trial.widths)
    compute = choose_engine(network, compute).compute

    def predictions(network: nn.Module, part: str) -> metrics.Predictions:
        evaluated = evaluation_pass(network, recipe.batch_size, compute)
        return metrics.predict(evaluated, seen[part], normalisation, recipe.batch_size, compute.device)

    def accuracy(network: nn.Module, part: str) -> float:
        return round(metrics.accuracy(predictions(network, part)), 4)

    raw: list[float] = []
    delivered: list[float] = []
    for epoch in fit(network, parts["train"], parts["val"], normalisation, recipe, seed=trial.seed, compute=compute):
        if trial.tested:
            raw.append(accuracy(network, "test"))
            delivered.append(accuracy(epoch.delivered, "test"))
        if epoch.epoch == recipe.epochs:
            val_accuracy_raw = accuracy(network, "val")
        say(epoch.epoch)
    result: Record = {
        "parameters": parameter_count(network),
        "epochs": recipe.epochs,
        "train_accuracy": accuracy(network, "train"),
        "val_accuracy": accuracy(network, "val"),
        "val_accuracy_raw": val_accuracy_raw,
        "engine": compute.engine,
    }
    if trial.tested:
        scores, labels = predictions(network, "test")
        result["test_accuracy"] = delivered[-1]
        result["test_by_epoch"] = {"raw": raw, "delivered": delivered}
        result["misread"] = (scores.argmax(1) != labels).nonzero().flatten().tolist()
    return result


def digest_of(files: list[Path]) -> str:
    """A name for the contents of files: 64 hexadecimal digits."""
    digests = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def fingerprint(trial: Trial, data: str, compute: Compute) -> str:
    """A name for what a trial's result follows from, settings, code and images: 64 hexadecimal digits.

    Neither the machine nor the libraries' versions are in it, nor comments and docstrings of the Python code.

    Args:
        data: the images' name, by ``digest_of``.
    """
    settings = {**trial._asdict(), "recipe": trial.recipe.model_dump()}
    computing = [compute.device.type, compute.engine, compute.precision]
    package = Path(__file__).parent
    files = [file for name in (*_CODE, f"models/{trial.model}.py") for file in sorted(package.glob(name))]
    code = [_code(file) for file in files]
    return hashlib.sha256(json.dumps([settings, computing, code, data]).encode()).hexdigest()


def _code(file: Path) -> str:
    """A source file's text; where it is Python, without remarks, unless it is not whole, in the middle of a change."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        with suppress(SyntaxError, ValueError, tokenize.TokenError):
            return without_remarks(text)
    return text


@cache
def without_remarks(source: str) -> str:
    """Python source without comments, docstrings and blank lines: to reword them should not cost hours of training.

    Not as ``ast.unparse`` writes it, which depends on Python's version.
    """
    lines = source.split("\n")
    dropped = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start[0] - 1, token.start[1]
        if token.type == tokenize.COMMENT:
            lines[row] = lines[row][:column].rstrip()
        elif token.type == tokenize.NL and not lines[row].strip():  # inside a string there is none
            dropped.add(row)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            dropped |= _whole_lines(node.body[0], lines)
    return "\n".join(line for row, line in enumerate(lines) if row not in dropped)


def _whole_lines(statement: ast.stmt, lines: list[str]) -> set[int]:
    """The rows of a statement that shares none of its lines with another; else none."""
    first, last = statement.lineno - 1, (statement.end_lineno or statement.lineno) - 1
    around = lines[first].encode()[: statement.col_offset], lines[last].encode()[statement.end_col_offset :]
    return set() if b"".join(around).strip() else set(range(first, last + 1))
