"""Measure one trained model."""

import json
from pathlib import Path

import pandas as pd

from mnist_cnn.common import cli
from mnist_cnn.common.errors import about
from mnist_cnn.common.files import write_text
from mnist_cnn.data.images import load_images, load_splits
from mnist_cnn.engine.checkpoint import load_weights
from mnist_cnn.engine.device import prepare
from mnist_cnn.engine.execution import choose_engine
from mnist_cnn.evaluation.evaluate import evaluate
from mnist_cnn.evaluation.metrics import confusion_table, recall
from mnist_cnn.evaluation.summary import receptive_field
from mnist_cnn.models import build
from mnist_cnn.settings.params import load


def main(
    params: Path, model: str, splits: Path, weights: Path, metrics: Path, confusion: Path, recalls: Path, record: Path
) -> None:
    """Measure one trained model; the only stage of the pipeline that looks at the test set."""
    settings = load(params)
    recipe = settings.models[model]
    execution = prepare(settings.train)
    network = build(model)
    load_weights(weights, network)
    with about(model):
        choice = choose_engine(network, execution)
        print(f"[INFO] Using device: {execution.device}; engine: {choice.reason}")
        result = evaluate(
            network,
            load_splits(splits, ("train", "val", "test"), recipe.deskew),
            load_images(splits / "test.safetensors").pixels,
            recipe,
            settings.targets,
            settings.evaluate,
            choice.execution,
        )
    measured = result.metrics.as_dict()
    for name, value in measured.items():
        print(f"[INFO] {model} {name}: {value}")

    write_text(metrics, json.dumps(measured, indent=2, allow_nan=False) + "\n")
    write_text(confusion, confusion_table(result.confusion).to_csv(index=False, lineterminator="\n"))
    by_class = pd.DataFrame({"images": result.confusion.sum(1), "recall": recall(result.confusion).numpy().round(4)})
    write_text(recalls, by_class.rename_axis("digit").to_csv(lineterminator="\n"))
    kept = {
        "metrics": measured,
        "receptive_field_px": receptive_field(network),
        "confusion": result.confusion.tolist(),
        "misclassified": [image._asdict() for image in result.misclassified],
    }
    write_text(record, json.dumps(kept, allow_nan=False) + "\n")


if __name__ == "__main__":
    cli.run(main)
