"""From the measurements of all models to the comparison table and its analysis."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from mnist_cnn.errors import InputError
from mnist_cnn.metrics import recall, wilson_interval
from mnist_cnn.params import Params, Step, Targets

# A gap between training and test accuracy, in points, above which a model is said to overfit. Two standard
# errors of 99 % on 10,000 images: a smaller gap can be chance.
OVERFITS_POINTS = 0.2


class Measured(NamedTuple):
    """All that the report knows of one model.

    ``metrics`` has the keys of ``metrics/<name>.json``; ``confusion`` counts test images, a row a true digit;
    ``misread`` are dicts with the fields of ``evaluation.Misread``; ``history`` has a row an epoch.
    """

    name: str
    metrics: dict[str, Any]
    receptive_field_px: int | None
    confusion: list[list[int]]
    misread: list[dict[str, Any]]
    history: pd.DataFrame

    @property
    def test_images(self) -> int:
        """How many images the test set has."""
        return sum(map(sum, self.confusion))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the test accuracy over test images, in percent."""
        return wilson_interval(self.test_images - len(self.misread), self.test_images)


def load_measured(name: str, evaluations: Path, histories: Path) -> Measured:
    """What the stages before left of a model. Raises InputError when it is missing or damaged."""
    record, history = evaluations / f"{name}.json", histories / f"{name}.csv"
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        return Measured(name, **kept, history=pd.read_csv(history))
    except (OSError, ValueError, TypeError) as error:
        fault = " ".join(str(error).split())
        raise InputError(f"{name}: {record} or {history} cannot be read ({fault}); 'dvc repro' restores both") from None


def analysis(model: Measured, previous: Measured | None, targets: Targets) -> list[str]:
    """What the numbers say of a model, in sentences: size, overfitting, accuracy, weakest digit, verdict."""
    metrics = model.metrics
    return [
        _on_parameters(metrics["parameters"], targets.parameters_below),
        _on_gap(metrics["generalization_gap"], previous),
        _on_accuracy(model, targets.test_accuracy),
        *([_on_change(model, previous)] if previous else []),
        _on_weakest_digit(model.confusion),
        _verdict(metrics, targets),
    ]


def _on_parameters(parameters: int, limit: int) -> str:
    if parameters < limit:
        return f"{parameters:,} parameters: under {limit:,}, with {limit - parameters:,} to spare"
    return f"{parameters:,} parameters: {parameters / limit:.1f} times the limit of {limit:,}"


def _on_gap(gap: float, previous: Measured | None) -> str:
    if gap > OVERFITS_POINTS:
        text = f"Overfits: training accuracy is {gap:.2f} points above test"
    elif gap >= 0:
        text = f"Does not overfit measurably: training accuracy is {gap:.2f} points above test"
    else:
        text = f"Does not overfit: training accuracy is {-gap:.2f} points below test"
    if previous is None:
        return text
    change = gap - previous.metrics["generalization_gap"]
    if abs(change) < 0.005:
        return f"{text}, as for {previous.name}"
    return f"{text}; {abs(change):.2f} points {'wider' if change > 0 else 'narrower'} than {previous.name}'s gap"


def _on_accuracy(model: Measured, target: float) -> str:
    accuracy, (low, high) = model.metrics["test_accuracy"], model.interval
    if accuracy >= target:
        text = f"Reaches {target:g} % on the test set"
    else:
        text = f"{target - accuracy:.2f} points short of {target:g} % on the test set"
    if low <= target <= high:
        return f"{text}; with {model.test_images:,} images the target lies within chance ({low:.2f} to {high:.2f})"
    return f"{text}, beyond chance ({low:.2f} to {high:.2f})"


def _on_change(model: Measured, previous: Measured) -> str:
    change = model.metrics["test_accuracy"] - previous.metrics["test_accuracy"]
    size = model.metrics["parameters"] / previous.metrics["parameters"] - 1
    parameters = (
        f"{abs(size):.0%} {'more' if size > 0 else 'fewer'} parameters" if abs(size) >= 0.005 else "as many parameters"
    )
    if abs(change) < 0.005:
        return f"As much test accuracy as {previous.name}, with {parameters}"
    direction = "more" if change > 0 else "less"
    return f"{abs(change):.2f} points {direction} test accuracy than {previous.name}, with {parameters}"


def _on_weakest_digit(confusion: list[list[int]]) -> str:
    recalls = recall(torch.tensor(confusion)).tolist()
    # A class without images has none.
    weakest = min((digit for digit, row in enumerate(confusion) if any(row)), key=recalls.__getitem__)
    mistaken = max((digit for digit in range(len(recalls)) if digit != weakest), key=confusion[weakest].__getitem__)
    if not confusion[weakest][mistaken]:
        return "Recognises every test image"
    return f"Weakest on the digit {weakest} ({recalls[weakest]:.1f} % recognised), most often taken for {mistaken}"


def missed_targets(metrics: Mapping[str, Any], targets: Targets) -> list[str]:
    """The targets that a model misses, in words; ``metrics`` has the keys of ``metrics/<name>.json``."""
    met = {
        f"{targets.test_accuracy:g} % accuracy": metrics["meets_accuracy_target"],
        f"at most {targets.max_epochs} epochs": metrics["meets_epochs_target"],
        f"fewer than {targets.parameters_below:,} parameters": metrics["meets_parameters_target"],
    }
    return [name for name, reached in met.items() if not reached]


def _verdict(metrics: dict[str, Any], targets: Targets) -> str:
    missed = missed_targets(metrics, targets)
    return f"Misses {' and '.join(missed)}" if missed else "**Meets all three targets**"


def comparison_markdown(models: list[Measured], params: Params) -> str:
    """The comparison as one Markdown table: target, result beside the brief's, analysis, a row a model."""
    lines = [
        "<!-- Generated by the report stage: change the pipeline, not this table. -->",
        "| Model | Target | Result (the brief's in brackets) | Analysis |",
        "|---|---|---|---|",
    ]
    for model, previous in zip(models, [None, *models], strict=False):
        step = params.report.story.get(model.name)
        cells = [
            f"**{model.name}**",
            " ".join(step.target.split()) if step else "",
            "<br>".join(_results(model, step)),
            "<br>".join(analysis(model, previous, params.targets)),
        ]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    lines += [
        "",
        "Accuracies are of the weights of the last epoch, on whole parts, without random changes; where a recipe has "
        "five views of an image, their scores are averaged. The interval is Wilson's, 95 %, over test images. The "
        "brief's are its best epoch, chosen on the test set.",
    ]
    return "\n".join(lines) + "\n"


def _results(model: Measured, step: Step | None) -> list[str]:
    metrics, (low, high) = model.metrics, model.interval

    def beside(text: str, brief: object) -> str:
        return text if brief is None else f"{text} ({brief})"

    def percent(value: float | None) -> str | None:
        return None if value is None else f"{value:.2f}"

    return [
        beside(f"Parameters: {metrics['parameters']:,}", step and step.brief_parameters),
        beside(f"Training: {metrics['train_accuracy']:.2f} %", percent(step.brief_train_accuracy) if step else None),
        f"Validation: {metrics['val_accuracy']:.2f} %",
        beside(f"**Test: {metrics['test_accuracy']:.2f} %**", percent(step.brief_test_accuracy) if step else None),
        f"95 % interval: {low:.2f} to {high:.2f}",
        f"Epochs: {metrics['epochs']}",
        f"Receptive field: {'–' if model.receptive_field_px is None else f'{model.receptive_field_px} px'}",
    ]


def comparison_table(models: list[Measured], params: Params) -> pd.DataFrame:
    """The comparison as numbers, a row a model, the metrics' keys and the brief's figures as columns."""
    rows = []
    for model in models:
        step = params.report.story.get(model.name)
        low, high = model.interval
        rows.append(
            {
                "model": model.name,
                **model.metrics,
                "test_accuracy_low": round(low, 4),
                "test_accuracy_high": round(high, 4),
                "receptive_field_px": model.receptive_field_px,
                "brief_train_accuracy": step.brief_train_accuracy if step else None,
                "brief_test_accuracy": step.brief_test_accuracy if step else None,
            }
        )
    return pd.DataFrame(rows)


def curves(models: list[Measured]) -> pd.DataFrame:
    """All histories in one tidy table: model, epoch, learning rate, and loss and accuracy a part."""
    return pd.concat([model.history.assign(model=model.name) for model in models], ignore_index=True)


def confusion_table(model: Measured) -> pd.DataFrame:
    """Counts of one model's confusion, a row a pair of true and predicted digit."""
    return pd.DataFrame(
        {"actual": actual, "predicted": predicted, "count": count}
        for actual, row in enumerate(model.confusion)
        for predicted, count in enumerate(row)
    )
