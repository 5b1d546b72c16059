"""Write one trained model as an ONNX file."""

import json
from pathlib import Path

import torch

from mnist_cnn.common.errors import InputError, about
from mnist_cnn.common.files import atomic_write, digest
from mnist_cnn.common.sealed import read_sealed, write_sealed
from mnist_cnn.data.images import STATISTICS, Images, load_normalisation
from mnist_cnn.data.tensors import load_tensors
from mnist_cnn.engine.checkpoint import load_weights
from mnist_cnn.engine.device import enough_memory, prepare
from mnist_cnn.engine.execution import choose_engine
from mnist_cnn.evaluation.evaluate import checked_predictor
from mnist_cnn.evaluation.looks import recipe_digest
from mnist_cnn.export.model_file import OPSET, to_onnx
from mnist_cnn.export.runtime import agreement, probabilities
from mnist_cnn.models import build
from mnist_cnn.settings.params import load
from stages import run


def main(params: Path, model: str, splits: Path, weights: Path, record: Path, exported: Path, facts: Path) -> None:
    """Write one trained model as an ONNX file, if it gives all test images the classes that the model gives them.

    Of the test set it sees pixels and no labels, so that it tells nothing of how good the model is.

    Args:
        params: the settings, params.yaml.
        model: one of the settings' models.
        splits: the folder with the splits and their statistics.
        weights: the checkpoint.
        record: what 'evaluate' recorded of the model.
        exported: written: the ONNX file.
        facts: written: its size, and how far it agrees with the model, for the report.
    """
    settings = load(params)
    recipe, measure = settings.recipe(model), settings.evaluate
    execution = prepare(settings.train)
    network = build(model)
    load_weights(weights, network)
    measured = read_sealed(record, f"'dvc repro evaluate@{model}'")["metrics"]
    data = settings.data_set
    said = {
        "model": model,
        "parameters": str(measured["parameters"]),
        "validation_accuracy": f"{measured['val_accuracy']} %",
        "recipe_digest": recipe_digest(model, settings, splits),
        "weights_sha256": digest(weights),
        "deskewed": str(recipe.deskew).lower(),
        "test_time_augmentation": str(recipe.tta).lower(),
        "input": "pixels: uint8 (N, 28, 28), 0 is background, 255 is ink",
        "output": "probabilities: float32 (N, 10), of the classes in their order",
        "classes": json.dumps(data.labels),
        "images": data.images,
        "trained_on": ", ".join(filter(None, (data.title, data.source))),
    }
    normalisation = load_normalisation(splits / STATISTICS)
    content = to_onnx(model, network, normalisation, said, deskew=recipe.deskew, tta=recipe.tta)
    tensors = load_tensors(splits / "test.safetensors", ("pixels", "deskewed"), restored_by="'dvc repro split'")
    pixels = tensors["pixels"]
    seen = Images(tensors["deskewed"] if recipe.deskew else pixels, torch.zeros(len(pixels), dtype=torch.long))
    with about(model), enough_memory(measure.batch_size):
        chosen = choose_engine(network, execution).execution
        expected = checked_predictor(network, normalisation, seen, recipe, measure, chosen)(seen)
        compared = agreement(probabilities(content, pixels, measure.batch_size), expected)
    if compared.different:
        raise InputError(
            f"{model}: the exported file gives {compared.different:,} of {compared.images:,} images another class than "
            f"the model; probabilities differ by up to {compared.largest_difference:g}"
        )
    with atomic_write(exported) as temporary:
        temporary.write_bytes(content)
    numbers = {"opset": OPSET, "bytes": len(content), **compared._asdict()}
    write_sealed(facts, numbers)
    for name, value in numbers.items():
        print(f"[INFO] {model} {name}: {value}")


if __name__ == "__main__":
    run(main)
