"""Compare the models: tables, analysis, figures."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from mnist_cnn.common.files import keep_only, write_text
from mnist_cnn.data.augmentation import augment, transform
from mnist_cnn.data.images import intensities, load_images
from mnist_cnn.engine.predictor import TTA_VIEWS
from mnist_cnn.evaluation.looks import load_looks
from mnist_cnn.evaluation.metrics import confusion_table
from mnist_cnn.report.cards import card
from mnist_cnn.report.comparison import (
    comparison_markdown,
    comparison_table,
    curves,
    looks_markdown,
    results_markdown,
)
from mnist_cnn.report.figures.curves import accuracy_curves, loss_curves
from mnist_cnn.report.figures.digits import augmented_images, confusion_matrix, misclassified_images
from mnist_cnn.report.figures.parameters import accuracy_against_parameters
from mnist_cnn.report.figures.robustness import robustness_map
from mnist_cnn.report.figures.style import save
from mnist_cnn.report.results import load_result
from mnist_cnn.report.robustness import NONE, robustness_markdown, robustness_table
from mnist_cnn.settings.params import Recipe, load
from mnist_cnn.settings.story import load_story
from stages import run

_ROWS_OF_AUGMENTED = 5


def main(
    params: Path,
    story: Path,
    evaluations: Path,
    tests: Path,
    exports: Path,
    looks: Path,
    histories: Path,
    train: Path,
    comparison: Path,
    results: Path,
    numbers: Path,
    selected: Path,
    robust_table: Path,
    robust_numbers: Path,
    looks_table: Path,
    cards: Path,
    curve: Path,
    confusion: Path,
    pictures: Path,
    vectors: Path,
) -> None:
    """Compare the models: a table with its analysis, a short one, the selected model's headline, figures.

    Args:
        params: the settings, params.yaml.
        story: what each model is for, story.yaml.
        evaluations: the folder of what 'evaluate' recorded.
        tests: the folder of what 'test' recorded.
        exports: the folder of what 'export' wrote of its files.
        looks: the declared looks at the test set, looks.yaml.
        histories: the folder of the trainings' histories.
        train: the training split, for examples of its images.
        comparison: written: the long table with its analysis, Markdown.
        results: written: the short table, Markdown.
        numbers: written: the comparison as numbers, CSV.
        selected: written: the selected model's metrics, JSON.
        robust_table: written: accuracy on corrupted images, Markdown.
        robust_numbers: written: the same as numbers, CSV.
        looks_table: written: all looks as a table, Markdown.
        cards: written: the folder of model cards.
        curve: written: all histories in one table, CSV.
        confusion: written: the selected model's confusion matrix, CSV.
        pictures: written: the folder of figures, PNG.
        vectors: written: the same, SVG.
    """
    settings = load(params)
    told, targets, data = load_story(story, settings.data), settings.targets, settings.data_set
    models = [load_result(name, evaluations, tests, exports, histories) for name in settings.models]
    chosen = next(model for model in models if model.name == settings.model)

    write_text(comparison, comparison_markdown(models, targets, told, data))
    write_text(results, results_markdown(models, targets, told, data))
    write_text(numbers, comparison_table(models, targets, told).to_csv(index=False, lineterminator="\n"))
    write_text(looks_table, looks_markdown(load_looks(looks)))
    corrupted = robustness_table(
        {model.name: model.test and {NONE: model.test.accuracy, **model.test.robustness} for model in models},
        settings.robustness,
    )
    write_text(robust_table, robustness_markdown(corrupted, data))
    write_text(robust_numbers, corrupted.to_csv(lineterminator="\n"))
    for model in models:
        target = told[model.name].target if model.name in told else None
        write_text(cards / f"{model.name}.md", card(model, settings, target))
    headline = {"model": chosen.name, **chosen.metrics.compared(), **(chosen.test.compared() if chosen.test else {})}
    write_text(selected, json.dumps(headline, indent=2, allow_nan=False) + "\n")
    write_text(curve, curves(models).to_csv(index=False, lineterminator="\n"))
    counts = confusion_table(torch.tensor(chosen.confusion), data.labels)
    write_text(confusion, counts.to_csv(index=False, lineterminator="\n"))

    recipe, count = settings.models[chosen.name], settings.report.augmented_digits
    written, seen = (load_images(train, deskewed).first(count).pixels for deskewed in (False, recipe.deskew))
    augmented = augmented_rows(seen, recipe, settings.train.seed, min(_ROWS_OF_AUGMENTED, recipe.epochs))
    figures = {
        "accuracy": accuracy_curves(models, data),
        "loss": loss_curves(models, data),
        "parameters": accuracy_against_parameters(models, targets, told, data),
        "confusion": confusion_matrix(chosen, data),
        "misclassified": misclassified_images(chosen, settings.report.misclassified_shown, data),
        "robustness": robustness_map(corrupted, written, settings.robustness, data),
        "augmented": augmented_images(chosen.name, data, recipe, written, seen, augmented, views(seen)),
    }
    for name, figure in figures.items():
        save(figure, pictures / f"{name}.png", vectors / f"{name}.svg")
    for folder, names, ending in (
        (cards, settings.models, "md"),
        (pictures, figures, "png"),
        (vectors, figures, "svg"),
    ):
        keep_only(folder, {f"{name}.{ending}" for name in names})
    print(f"[INFO] {comparison}, {results}, {numbers}, {selected}, {pictures}")


def augmented_rows(pixels: Tensor, recipe: Recipe, seed: int, rows: int) -> list[Tensor]:
    """Digits as a recipe augments them in as many epochs as there are rows: ``(N, 28, 28)`` float in [0, 1] each.

    Args:
        pixels: uint8 ``(N, 28, 28)``, deskewed where the recipe says so.
    """
    generator = torch.Generator().manual_seed(seed)
    return [augment(intensities(pixels), recipe.augmentation, generator).squeeze(1) for _ in range(rows)]


def views(pixels: Tensor) -> list[Tensor]:
    """Digits as test-time augmentation shows them to a network: ``(N, 28, 28)`` float in [0, 1] each.

    Args:
        pixels: uint8 ``(N, 28, 28)``, deskewed where the recipe says so.
    """
    images, ones = intensities(pixels), torch.ones(len(pixels))
    return [
        transform(images, math.radians(angle) * ones, ones, left * ones, up * ones).squeeze(1)
        for angle, left, up in TTA_VIEWS
    ]


if __name__ == "__main__":
    run(main)
