"""Train one model by its recipe."""

import time
from pathlib import Path

import pandas as pd
import torch

from mnist_cnn import runtime
from mnist_cnn.checkpoint import save_weights
from mnist_cnn.data import load_images, load_normalisation
from mnist_cnn.describe import layer_table, receptive_field
from mnist_cnn.engine import choose_engine
from mnist_cnn.errors import about
from mnist_cnn.files import write_text
from mnist_cnn.models import build
from mnist_cnn.params import load
from mnist_cnn.training import fit
from stages import cli


def main(params: Path, model: str, train: Path, val: Path, statistics: Path, weights: Path, history: Path) -> None:
    """Train one model by its recipe; write the weights of the last epoch and a row an epoch."""
    settings = load(params)
    shared, recipe = settings.train, settings.models[model]
    compute = runtime.prepare(shared)
    print(f"[INFO] Using device: {compute.device}, precision {compute.precision}")

    print("[STEP 1/5] Preparing datasets...")
    train_images, val_images, normalisation = load_images(train), load_images(val), load_normalisation(statistics)
    print(
        f"[INFO] Loader settings: shuffle, batch_size {recipe.batch_size}, whole set in memory; "
        f"deslant={recipe.deslant} views={recipe.views} {recipe.augmentation}"
    )
    print(f"[INFO] Total training batches: {-(-len(train_images.labels) // recipe.batch_size)}")
    print(f"[INFO] Training samples: {len(train_images.labels)}")
    print(f"[INFO] Validation samples: {len(val_images.labels)}")

    print("[STEP 2/5] Initializing model...")
    torch.manual_seed(shared.seed)
    network = build(model, recipe.dropout)
    print(layer_table(network))
    field = receptive_field(network)
    print(f"[INFO] Receptive field of the last convolution: {'not known' if field is None else f'{field} px'}")
    with about(model):
        choice = choose_engine(network, compute)
        print(f"[INFO] Engine: {choice.told}")

        print("[STEP 3/5] Starting training and validation...", flush=True)
        started = time.monotonic()
        records = []
        run = fit(network, train_images, val_images, normalisation, recipe, seed=shared.seed, compute=choice.compute)
        for record in run:
            records.append(record.figures())
            seconds = time.monotonic() - started
            print(
                f"[INFO] Epoch {record.epoch}/{recipe.epochs}: learning rate {record.learning_rate:.4g}, "
                f"training loss {record.train_loss:.4f} and accuracy {record.train_accuracy:.2f}%, "
                f"validation accuracy {record.val_accuracy:.2f}%, {seconds:.0f} s so far, "
                f"about {seconds / record.epoch * (recipe.epochs - record.epoch):.0f} s left",
                flush=True,
            )

    print("[STEP 4/5] Evaluating model against validation...")
    print(f"[INFO] Validation accuracy of the last epoch: {records[-1]['val_accuracy']:.2f}%")

    print("[STEP 5/5] Saving weights and history...")
    save_weights(weights, network)
    write_text(history, pd.DataFrame(records).round(6).to_csv(index=False, lineterminator="\n"))
    print(f"[INFO] {weights}, {history}")


if __name__ == "__main__":
    cli.run(main)
