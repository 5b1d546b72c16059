"""Compare the models: tables, analysis, figures."""

import json
from pathlib import Path

import torch
from torch import Tensor

from mnist_cnn.common.files import write_text
from mnist_cnn.data.augmentation import augment
from mnist_cnn.data.images import intensities, load_images
from mnist_cnn.evaluation.looks import load_looks
from mnist_cnn.evaluation.metrics import confusion_table
from mnist_cnn.report.comparison import (
    comparison_markdown,
    comparison_table,
    curves,
    looks_markdown,
    results_markdown,
)
from mnist_cnn.report.figures.curves import accuracy_curves, loss_curves
from mnist_cnn.report.figures.digits import augmented_digits, confusion_matrix, misclassified_digits
from mnist_cnn.report.figures.parameters import accuracy_against_parameters
from mnist_cnn.report.figures.style import save
from mnist_cnn.report.results import load_result
from mnist_cnn.settings.params import Recipe, load
from mnist_cnn.settings.story import load_story
from stages import run

_ROWS_OF_AUGMENTED = 5


def main(
    params: Path,
    story: Path,
    evaluations: Path,
    tests: Path,
    looks: Path,
    histories: Path,
    train: Path,
    comparison: Path,
    results: Path,
    numbers: Path,
    selected: Path,
    looks_table: Path,
    curve: Path,
    confusion: Path,
    pictures: Path,
) -> None:
    """Compare the models: a table with its analysis, a short one, the selected model's headline, figures."""
    settings, told = load(params), load_story(story)
    targets = settings.targets
    models = [load_result(name, evaluations, tests, histories) for name in settings.models]
    chosen = next(model for model in models if model.name == settings.model)

    write_text(comparison, comparison_markdown(models, targets, told))
    write_text(results, results_markdown(models, targets, told))
    write_text(numbers, comparison_table(models, targets, told).to_csv(index=False, lineterminator="\n"))
    write_text(looks_table, looks_markdown(load_looks(looks)))
    headline = {"model": chosen.name, **chosen.metrics.compared(), **(chosen.test.compared() if chosen.test else {})}
    write_text(selected, json.dumps(headline, indent=2, allow_nan=False) + "\n")
    write_text(curve, curves(models).to_csv(index=False, lineterminator="\n"))
    write_text(confusion, confusion_table(torch.tensor(chosen.confusion)).to_csv(index=False, lineterminator="\n"))

    recipe, count = settings.models[chosen.name], settings.report.augmented_digits
    written, seen = (load_images(train, deskewed).first(count).pixels for deskewed in (False, recipe.deskew))
    augmented = augmented_rows(seen, recipe, settings.train.seed, _ROWS_OF_AUGMENTED)
    for name, figure in {
        "accuracy": accuracy_curves(models, settings),
        "loss": loss_curves(models),
        "parameters": accuracy_against_parameters(models, settings),
        "confusion": confusion_matrix(chosen),
        "misclassified": misclassified_digits(chosen, settings.report.misclassified_shown),
        "augmented": augmented_digits(written, augmented, chosen.name, recipe),
    }.items():
        save(figure, pictures / f"{name}.png")
    print(f"[INFO] {comparison}, {results}, {numbers}, {selected}, {pictures}")


def augmented_rows(pixels: Tensor, recipe: Recipe, seed: int, rows: int) -> list[Tensor]:
    """Digits as a recipe augments them in as many epochs as there are rows: ``(N, 28, 28)`` float in [0, 1] each.

    Args:
        pixels: uint8 ``(N, 28, 28)``, deskewed where the recipe says so.
    """
    generator = torch.Generator().manual_seed(seed)
    return [augment(intensities(pixels), recipe.augmentation, generator).squeeze(1) for _ in range(rows)]


if __name__ == "__main__":
    run(main)
