"""Measure one trained model on the test set, where a look at it is declared."""

import json
from pathlib import Path

from mnist_cnn.common.errors import about
from mnist_cnn.common.files import write_text
from mnist_cnn.common.sealed import write_sealed
from mnist_cnn.data.images import STATISTICS, load_images, load_normalisation
from mnist_cnn.engine.checkpoint import load_weights
from mnist_cnn.engine.device import enough_memory, prepare
from mnist_cnn.engine.execution import choose_engine, computing_class
from mnist_cnn.evaluation.evaluate import checked_predictor, on_test_set
from mnist_cnn.evaluation.looks import is_declared, load_looks, recipe_digest
from mnist_cnn.evaluation.robustness import robustness
from mnist_cnn.models import build
from mnist_cnn.settings.params import load
from stages import run


def main(params: Path, model: str, looks: Path, splits: Path, weights: Path, metrics: Path, record: Path) -> None:
    """Measure one trained model on the test set; the only stage of the pipeline that looks at it.

    Where no look at the model's present recipe is declared, the test images are not read, and nothing is measured.

    Args:
        params: the settings, params.yaml.
        model: one of the settings' models.
        looks: the declared looks at the test set, looks.yaml.
        splits: the folder with the splits and their statistics.
        weights: the checkpoint.
        metrics: written: what 'dvc metrics' compares, JSON.
        record: written: all that was measured, for the report.
    """
    settings = load(params)
    recipe = settings.recipe(model)
    if not is_declared(model, recipe_digest(model, settings, splits), load_looks(looks)):
        print(f"[INFO] {model}: not measured on the test set: {looks} declares no look at this recipe.")
        print(f"[INFO] Validation decides. When all is chosen: make look MODELS={model} WHY='...'")
        write_text(metrics, "{}\n")
        write_sealed(record, {"tested": None})
        return
    execution = prepare(settings.train)
    network = build(model)
    load_weights(weights, network)
    with about(model):
        choice = choose_engine(network, execution)
        print(f"[INFO] Using device: {execution.device}; engine: {choice.reason}")
        written, images = (load_images(splits / "test.safetensors", deskewed) for deskewed in (False, recipe.deskew))
        normalisation = load_normalisation(splits / STATISTICS)
        with enough_memory(settings.evaluate.batch_size):
            predict = checked_predictor(network, normalisation, images, recipe, settings.evaluate, choice.execution)
            corrupted = robustness(predict, written, recipe.deskew, settings.robustness)
            tested = on_test_set(predict, images, corrupted)
    for name, value in (tested.compared() | corrupted).items():
        print(f"[INFO] {model} {name}: {value}")
    write_text(metrics, json.dumps(tested.compared(), indent=2, allow_nan=False) + "\n")
    write_sealed(record, {"computed_by": computing_class(choice.execution), "tested": tested._asdict()})


if __name__ == "__main__":
    run(main)
