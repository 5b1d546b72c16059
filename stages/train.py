"""Train one model by its recipe."""

import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torchinfo import summary

from mnist_cnn.common import cli
from mnist_cnn.common.errors import about
from mnist_cnn.common.files import write_text
from mnist_cnn.data.images import load_splits
from mnist_cnn.engine.checkpoint import save_weights
from mnist_cnn.engine.device import prepare
from mnist_cnn.engine.execution import choose_engine
from mnist_cnn.models import build
from mnist_cnn.settings.params import load
from mnist_cnn.training.fit import Epoch, fit


def main(params: Path, model: str, splits: Path, weights: Path, history: Path) -> None:
    """Train one model by its recipe; write the weights of the last epoch and a row an epoch."""
    settings = load(params)
    shared, recipe = settings.train, settings.models[model]
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

    started = time.monotonic()

    def show(epoch: Epoch, _: nn.Module) -> None:
        seconds = time.monotonic() - started
        print(
            f"[INFO] Epoch {epoch.epoch}/{recipe.epochs}: learning rate {epoch.learning_rate:.4g}, "
            f"training loss {epoch.train_loss:.4f} and accuracy {epoch.train_accuracy:.2f}%, "
            f"validation accuracy {epoch.val_accuracy:.2f}%, {seconds:.0f} s so far, "
            f"about {seconds / epoch.epoch * (recipe.epochs - epoch.epoch):.0f} s left",
            flush=True,
        )

    with about(model):
        choice = choose_engine(network, execution)
        print(f"[INFO] Engine: {choice.reason}")
        print("[STEP 3/4] Starting training and validation...", flush=True)
        epochs = fit(network, data, recipe, seed=shared.seed, execution=choice.execution, on_epoch=show)

    print("[STEP 4/4] Saving weights and history...")
    save_weights(weights, network)
    write_text(history, pd.DataFrame(epochs).round(6).to_csv(index=False, lineterminator="\n"))
    print(f"[INFO] {weights}, {history}")


def _layer_table(network: nn.Module, image: torch.Tensor) -> str:
    """The layers with their output shapes and parameters."""
    # In evaluation mode no random number is drawn and no statistic changed.
    columns = ("output_size", "num_params")
    return str(summary(network, input_data=image, mode="eval", verbose=0, depth=100, col_names=columns))


if __name__ == "__main__":
    cli.run(main)
