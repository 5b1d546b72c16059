"""Train one model by its recipe."""

import itertools
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torchinfo import summary

from mnist_cnn.common.errors import about
from mnist_cnn.common.files import write_text
from mnist_cnn.data.images import load_splits
from mnist_cnn.engine.checkpoint import save_weights
from mnist_cnn.engine.device import enough_memory, prepare
from mnist_cnn.engine.execution import choose_engine
from mnist_cnn.models import build
from mnist_cnn.settings.params import load
from mnist_cnn.training.fit import Epoch, OnEpoch, fit
from mnist_cnn.training.progress import progress_of
from stages import inputs, run


def main(params: Path, model: str, splits: Path, weights: Path, history: Path) -> None:
    """Train one model by its recipe; write the weights of the last epoch and a row an epoch.

    Args:
        params: the settings, params.yaml.
        model: one of the settings' models.
        splits: the folder with the splits and their statistics.
        weights: written: the checkpoint.
        history: written after each epoch: a row an epoch, CSV.
    """
    settings = load(params)
    shared, recipe = settings.train, settings.recipe(model)
    execution = prepare(shared)
    print(f"[INFO] Using device: {execution.device}, precision {execution.precision}")

    print("[STEP 1/4] Preparing datasets...")
    data = load_splits(splits, ("train", "val"), recipe.deskew)
    print(f"[INFO] Training samples: {len(data.train.labels)}, all in memory, shuffled in each epoch")
    print(f"[INFO] Validation samples: {len(data.val.labels)}")
    print(
        f"[INFO] Batch size: {recipe.batch_size}; batches an epoch: {-(-len(data.train.labels) // recipe.batch_size)}"
    )
    print(f"[INFO] Deskewed: {recipe.deskew}; test-time augmentation: {recipe.tta}; {recipe.augmentation!r}")

    print("[STEP 2/4] Initializing model...")
    torch.manual_seed(shared.seed)
    network = build(model, recipe.dropout)
    print(_layer_table(network, data.train.pixels[:1].unsqueeze(1).float()))

    with about(model):
        choice = choose_engine(network, execution)
        print(f"[INFO] Engine: {choice.reason}")
        print("[STEP 3/4] Starting training and validation...", flush=True)
        followed = inputs()
        if followed:
            # The state is kept by the name of what was read when the process began.
            followed.check_unchanged()
        follows_from = followed.fingerprint if followed else None
        progress = progress_of(follows_from, choice.execution, lambda line: print(f"[INFO] {line}"))
        show = _reporting(recipe.epochs, progress.notes, history)
        with enough_memory(recipe.batch_size):
            fit(network, data, recipe, seed=shared.seed, execution=choice.execution, on_epoch=show, progress=progress)

    print("[STEP 4/4] Saving weights and history...")
    _write_history(progress.notes, history)
    save_weights(weights, network)
    if followed:
        # Before the state is removed: where an edit is taken back, training need not begin anew.
        followed.check_unchanged()
    # The result is in its place: what cannot be removed costs space alone.
    with suppress(OSError):
        progress.remove()
    print(f"[INFO] {weights}, {history}")


def _reporting(epochs: int, rows: list, history: Path) -> OnEpoch:
    """What to do at an epoch's end: a line with a forecast, and the history so far, so that it can be watched.

    Args:
        rows: those of the epochs so far; each epoch's is added.
    """
    started, done = time.monotonic(), itertools.count(1)

    def report(epoch: Epoch, _: nn.Module) -> None:
        rows.append(epoch)
        _write_history(rows, history)
        seconds = time.monotonic() - started
        print(
            f"[INFO] Epoch {epoch.epoch}/{epochs}: learning rate {epoch.learning_rate:.4g}, "
            f"training loss {epoch.train_loss:.4f} and accuracy {epoch.train_accuracy:.2f}%, "
            f"validation accuracy {epoch.val_accuracy:.2f}%, {seconds:.0f} s so far, "
            f"about {seconds / next(done) * (epochs - epoch.epoch):.0f} s left",
            flush=True,
        )

    return report


def _write_history(rows: list, history: Path) -> None:
    table = pd.DataFrame(rows, columns=list(Epoch._fields)).round(6)
    write_text(history, table.to_csv(index=False, lineterminator="\n"))


def _layer_table(network: nn.Module, image: torch.Tensor) -> str:
    """The layers with their output shapes and parameters."""
    # In evaluation mode no random number is drawn and no statistic changed.
    columns = ("output_size", "num_params")
    return str(summary(network, input_data=image, mode="eval", verbose=0, depth=100, col_names=columns))


if __name__ == "__main__":
    run(main)
