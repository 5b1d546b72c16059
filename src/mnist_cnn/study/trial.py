"""One trial: a model, a recipe and a seed, trained and measured after each epoch."""

from collections.abc import Callable, Collection
from functools import partial

import torch
from torch import nn

from mnist_cnn.data.images import Splits
from mnist_cnn.engine.execution import ExecutionConfig, choose_engine, computing_class
from mnist_cnn.engine.predictor import Predictor
from mnist_cnn.evaluation.summary import parameter_count
from mnist_cnn.models import build
from mnist_cnn.study.plan import Trial
from mnist_cnn.study.records import Record
from mnist_cnn.training.fit import Epoch, fit
from mnist_cnn.training.progress import progress_of


def splits_of(trial: Trial) -> Collection[str]:
    """The names of the splits that a trial needs."""
    return ("train", "val", "test") if trial.tested else ("train", "val")


def measure(
    trial: Trial,
    splits: Splits,
    execution: ExecutionConfig,
    say: Callable[[int], object],
    fingerprint: str | None = None,
) -> Record:
    """Train and measure, as the stages ``train`` and ``evaluate`` do: the same seed gives the same weights.

    Args:
        splits: those of ``splits_of``, deskewed where the trial's recipe says so.
        say: called after each epoch with its number.
        fingerprint: a name for what the trial follows from, by which it goes on where an earlier process was ended.

    Returns what JSON can hold; accuracies are in percent, rounded to 4 decimals:
        ``parameters``, ``epochs``, the ``engine`` that computed, and by what (``computed_by``); ``train_accuracy``,
        ``val_accuracy`` and ``test_accuracy`` of the final weights (their EMA, where the recipe has one);
        ``val_accuracy_raw`` of the last step's; ``test_images``, their number; ``test_by_epoch``, a list for the
        ``raw`` and one for the ``final`` weights of each epoch; ``misclassified``, the numbers of the test images that
        the final weights misclassify.
    """
    recipe = trial.recipe
    torch.manual_seed(trial.seed)
    network = build(trial.model, recipe.dropout, trial.widths)
    execution = choose_engine(network, execution).execution
    predictor = partial(
        Predictor, normalisation=splits.normalisation, execution=execution, tta=recipe.tta, batch_size=recipe.batch_size
    )

    def accuracy(network: nn.Module, split: str) -> float:
        return round(predictor(network)(splits.images[split]).accuracy, 4)

    progress = progress_of(fingerprint, execution)

    def on_epoch(epoch: Epoch, result: nn.Module) -> None:
        tested = [accuracy(network, "test"), accuracy(result, "test")] if trial.tested else []
        last = epoch.epoch == recipe.epochs
        progress.notes.append({"tested": tested, "val_raw": accuracy(network, "val") if last else None})
        say(epoch.epoch)

    fit(network, splits, recipe, seed=trial.seed, execution=execution, on_epoch=on_epoch, progress=progress)
    notes = progress.notes
    result: Record = {
        "parameters": parameter_count(network),
        "epochs": recipe.epochs,
        "train_accuracy": accuracy(network, "train"),
        "val_accuracy": accuracy(network, "val"),
        "val_accuracy_raw": notes[-1]["val_raw"],
        "engine": execution.engine,
        "computed_by": computing_class(execution),
    }
    if trial.tested:
        tested = predictor(network)(splits.test)
        raw, final = (list(column) for column in zip(*(note["tested"] for note in notes), strict=True))
        result["test_accuracy"] = final[-1]
        result["test_images"] = len(tested.labels)
        result["test_by_epoch"] = {"raw": raw, "final": final}
        result["misclassified"] = (~tested.correct).nonzero().flatten().tolist()
    progress.remove()
    return result
