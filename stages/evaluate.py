"""Measure one trained model on the training and the validation split."""

import json
from pathlib import Path

import pandas as pd

from mnist_cnn.common.errors import about
from mnist_cnn.common.files import write_text
from mnist_cnn.common.sealed import write_sealed
from mnist_cnn.data.images import load_images, load_splits
from mnist_cnn.engine.checkpoint import load_weights
from mnist_cnn.engine.device import enough_memory, prepare
from mnist_cnn.engine.execution import choose_engine, computing_class
from mnist_cnn.evaluation.evaluate import checked_predictor, evaluate
from mnist_cnn.evaluation.metrics import confusion_table, recall
from mnist_cnn.evaluation.summary import receptive_field
from mnist_cnn.models import build
from mnist_cnn.settings.params import load
from stages import run


def main(
    params: Path, model: str, splits: Path, weights: Path, metrics: Path, confusion: Path, recalls: Path, record: Path
) -> None:
    """Measure one trained model on the training and the validation split.

    Args:
        params: the settings, params.yaml.
        model: one of the settings' models.
        splits: the folder with the splits and their statistics.
        weights: the checkpoint.
        metrics: written: what 'dvc metrics' compares, JSON.
        confusion: written: the confusion matrix of the validation images, CSV.
        recalls: written: the recall of each class, CSV.
        record: written: all that was measured, for the report.
    """
    settings = load(params)
    recipe, measure = settings.recipe(model), settings.evaluate
    execution = prepare(settings.train)
    network = build(model)
    load_weights(weights, network)
    with about(model):
        choice = choose_engine(network, execution)
        print(f"[INFO] Using device: {execution.device}; engine: {choice.reason}")
        images = load_splits(splits, ("train", "val"), recipe.deskew)
        written = load_images(splits / "val.safetensors").pixels
        engine = choice.execution.engine
        with enough_memory(measure.batch_size):
            predict = checked_predictor(network, images.normalisation, images.val, recipe, measure, choice.execution)
            result = evaluate(network, predict, images, written, recipe.epochs, measure.calibration_bins, engine)
    measured, labels = result.metrics.as_dict(), settings.data_set.labels
    for name, value in measured.items():
        print(f"[INFO] {model} {name}: {value}")

    write_text(metrics, json.dumps(result.metrics.compared(), indent=2, allow_nan=False) + "\n")
    write_text(confusion, confusion_table(result.confusion, labels).to_csv(index=False, lineterminator="\n"))
    by_class = pd.DataFrame(
        {"class": labels, "images": result.confusion.sum(1), "recall": recall(result.confusion).numpy().round(4)}
    )
    write_text(recalls, by_class.to_csv(index=False, lineterminator="\n"))
    kept = {
        "computed_by": computing_class(choice.execution),
        "metrics": measured,
        "receptive_field_px": receptive_field(network),
        "confusion": result.confusion.tolist(),
        "misclassified": [image._asdict() for image in result.misclassified],
    }
    write_sealed(record, kept)


if __name__ == "__main__":
    run(main)
