"""Compare the models: table, analysis, pictures."""

import json
from pathlib import Path

import torch
from torch import Tensor

from mnist_cnn import plotting
from mnist_cnn.augmentation import augment
from mnist_cnn.data import Images, intensities, load_images
from mnist_cnn.files import write_text
from mnist_cnn.params import Recipe, load
from mnist_cnn.report import comparison_markdown, comparison_table, confusion_table, curves, load_measured
from mnist_cnn.views import for_training
from stages import cli

_ROWS_OF_AUGMENTED = 5


def main(
    params: Path,
    evaluations: Path,
    histories: Path,
    train: Path,
    table: Path,
    numbers: Path,
    selected: Path,
    curve: Path,
    confusion: Path,
    pictures: Path,
) -> None:
    """Compare the models: table with its analysis, headline of the selected model, pictures."""
    settings = load(params)
    models = [load_measured(name, evaluations, histories) for name in settings.models]
    chosen = next(model for model in models if model.name == settings.model)

    markdown = comparison_markdown(models, settings)
    write_text(table, markdown)
    write_text(numbers, comparison_table(models, settings).to_csv(index=False, lineterminator="\n"))
    write_text(selected, json.dumps({"model": chosen.name, **chosen.metrics}, indent=2, allow_nan=False) + "\n")
    write_text(curve, curves(models).to_csv(index=False, lineterminator="\n"))
    write_text(confusion, confusion_table(chosen).to_csv(index=False, lineterminator="\n"))

    recipe = settings.models[chosen.name]
    digits = next(load_images(train).batches(settings.report.augmented_digits))
    augmented = seen_in_training(digits, recipe, settings.train.seed, _ROWS_OF_AUGMENTED)
    for name, figure in {
        "accuracy": plotting.accuracy_curves(models, settings),
        "loss": plotting.loss_curves(models),
        "parameters": plotting.accuracy_against_parameters(models, settings),
        "confusion": plotting.confusion_matrix(chosen),
        "misread": plotting.misread_digits(chosen, settings.report.misread_shown),
        "augmented": plotting.augmented_digits(digits.pixels, augmented, chosen.name, recipe),
    }.items():
        plotting.save(figure, pictures / f"{name}.png")
    print(f"[INFO] {table}, {numbers}, {selected}, {pictures}")


def seen_in_training(digits: Images, recipe: Recipe, seed: int, times: int) -> list[Tensor]:
    """Digits as a model may get to see them when it is trained, ``times`` times over: ``(N, 28, 28)`` in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    upright = intensities(for_training(digits, recipe).pixels)
    return [augment(upright, recipe.augmentation, generator).squeeze(1) for _ in range(times)]


if __name__ == "__main__":
    cli.run(main)
