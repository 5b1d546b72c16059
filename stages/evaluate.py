"""Measure one trained model."""

import json
from pathlib import Path

import pandas as pd

from mnist_cnn import runtime
from mnist_cnn.checkpoint import load_weights
from mnist_cnn.data import load_images, load_normalisation
from mnist_cnn.describe import receptive_field
from mnist_cnn.engine import choose_engine
from mnist_cnn.errors import about
from mnist_cnn.evaluation import evaluate
from mnist_cnn.files import write_text
from mnist_cnn.metrics import recall
from mnist_cnn.models import build
from mnist_cnn.params import load
from stages import cli


def main(
    params: Path, model: str, parts: Path, weights: Path, metrics: Path, confusion: Path, recalls: Path, record: Path
) -> None:
    """Measure one trained model; the only stage that looks at the test set."""
    settings = load(params)
    compute = runtime.prepare(settings.train)
    network = build(model)
    load_weights(weights, network)
    with about(model):
        choice = choose_engine(network, compute)
        result = evaluate(
            network,
            {name: load_images(parts / f"{name}.safetensors") for name in ("train", "val", "test")},
            load_normalisation(parts / "statistics.json"),
            settings.models[model],
            settings.targets,
            batch_size=settings.evaluate.batch_size,
            calibration_bins=settings.evaluate.calibration_bins,
            compute=choice.compute,
        )
    print(f"[INFO] Using device: {compute.device}; {choice.told}")
    for name, value in result.metrics.items():
        print(f"[INFO] {model} {name}: {value}")

    write_text(metrics, json.dumps(result.metrics, indent=2, allow_nan=False) + "\n")
    cells = pd.Series(result.confusion.flatten()).rename("count")
    digits = pd.MultiIndex.from_product([range(10), range(10)], names=["actual", "predicted"])
    write_text(confusion, cells.set_axis(digits).to_csv(lineterminator="\n"))
    by_class = pd.DataFrame({"images": result.confusion.sum(1), "recall": recall(result.confusion).numpy().round(4)})
    write_text(recalls, by_class.rename_axis("digit").to_csv(lineterminator="\n"))
    kept = {
        "metrics": result.metrics,
        "receptive_field_px": receptive_field(network.cpu()),
        "confusion": result.confusion.tolist(),
        "misread": [image._asdict() for image in result.misread],
    }
    write_text(record, json.dumps(kept, allow_nan=False) + "\n")


if __name__ == "__main__":
    cli.run(main)
