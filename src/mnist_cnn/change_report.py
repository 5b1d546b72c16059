"""What a change does to settings and results, as a page of Markdown for its pull request."""

import csv
import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mnist_cnn.errors import InputError

# What the page compares, of metrics/comparison.csv: name and number format.
_METRICS = {
    "test_accuracy": ("Test accuracy (%)", ".2f"),
    "val_accuracy": ("Validation accuracy (%)", ".2f"),
    "train_accuracy": ("Training accuracy (%)", ".2f"),
    "parameters": ("Parameters", ",.0f"),
    "epochs": ("Epochs", ",.0f"),
}
# More than these are folded.
_MOST_SETTINGS = 15
_PICTURES = ("parameters", "accuracy")
# What means something in Markdown, beside what means something in HTML.
_SIGNS = "|`*[]@#~\\"


class Results(NamedTuple):
    """What one version of the repository has in params.yaml and metrics/.

    ``settings`` are nested; ``models`` are the rows of comparison.csv by model, numbers where they are some.
    """

    settings: dict[str, Any]
    selected: dict[str, Any]
    models: dict[str, dict[str, Any]]
    comparison: str


def load_results(folder: Path) -> Results | None:
    """The results in a folder with a version of the repository; None where it has none yet.

    Raises:
        InputError: they are there but cannot be read.
    """
    metrics = folder / "metrics"
    if not (metrics / "selected.json").is_file():
        return None
    try:
        rows = csv.DictReader((metrics / "comparison.csv").read_text(encoding="utf-8").splitlines())
        return Results(
            settings=yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8")),
            selected=json.loads((metrics / "selected.json").read_text(encoding="utf-8")),
            models={row["model"]: {name: _number(value) for name, value in row.items()} for row in rows},
            comparison=(metrics / "comparison.md").read_text(encoding="utf-8"),
        )
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        raise InputError(f"{folder}: its results cannot be read ({' '.join(str(error).split())})") from None


def change_report(
    title: str, before: Results | None, after: Results, altered: list[str], pictures: str | None, reproduce: list[str]
) -> str:
    """The page: verdict, what changed in metrics and settings, pictures, the whole table, how to reproduce.

    Args:
        before: None for a first report.
        altered: files of the results that came out otherwise than they are committed.
        pictures: the address of the folder with the pictures; None where they can be seen nowhere.
        reproduce: commands.
    """
    parts = [
        f"## {_text(title)}",
        _verdict(after),
        *([_on_altered(altered)] if altered else []),
        f"### Metrics\n\n{_metrics(before, after)}",
        f"### Settings\n\n{_settings(before, after)}",
    ]
    if pictures:
        parts.append("\n".join(f"![{name}]({pictures}/{name}.png)" for name in _PICTURES))
    parts += [
        f"<details><summary>All models</summary>\n\n{after.comparison.strip()}\n\n</details>",
        "<details><summary>How to reproduce</summary>\n\n```bash\n" + "\n".join(reproduce) + "\n```\n\n</details>",
    ]
    return "\n\n".join(parts) + "\n"


def _verdict(results: Results) -> str:
    selected, targets = results.selected, results.settings["targets"]
    missed = _missed(selected, targets)
    reached = (
        f"{selected['test_accuracy']:.2f} % of the test set after {selected['epochs']} epochs, "
        f"with {selected['parameters']:,} parameters"
    )
    if missed:
        verdict = f"❌ **{_text(selected['model'])} misses {' and '.join(missed)}**: {reached}."
    else:
        verdict = f"✅ **{_text(selected['model'])} meets all three targets**: {reached}."
    meeting = [name for name, metrics in results.models.items() if not _missed(metrics, targets)]
    return f"{verdict} All three are met by {_listed(meeting) or 'none'}, of {len(results.models)} in the table."


def _missed(metrics: Mapping[str, Any], targets: Mapping[str, Any]) -> list[str]:
    met = {
        f"{targets['test_accuracy']:g} % accuracy": metrics["meets_accuracy_target"],
        f"at most {targets['max_epochs']} epochs": metrics["meets_epochs_target"],
        f"fewer than {targets['parameters_below']:,} parameters": metrics["meets_parameters_target"],
    }
    return [name for name, is_met in met.items() if not is_met]


def _on_altered(altered: list[str]) -> str:
    files = ", ".join(map(_text, altered[:10]))
    more = f" and {len(altered) - 10} more" if len(altered) > 10 else ""
    return (
        f"⚠️ **Reproduced here, {files}{more} came out otherwise than committed.** The figures below are those made "
        "here. Either the results were not committed after the last change, or another kind of processor rounds "
        "otherwise; `make verify` tells which."
    )


def _metrics(before: Results | None, after: Results) -> str:
    if before is None:
        return "The first results: there is nothing to compare them with."
    rows = []
    if before.selected["model"] != after.selected["model"]:
        rows.append(["", "Model presented", _text(before.selected["model"]), _text(after.selected["model"]), ""])
    for name in {**before.models, **after.models}:
        rows += _changes(name, before.models.get(name), after.models.get(name))
    if not rows:
        return "No change."
    table = _table(["Model", "Metric", "Before", "After", "Change"], rows)
    if "within chance" not in table:
        return table
    return f"{table}\n\nWithin chance: inside the 95 % interval, over test images, of the accuracy before."


def _changes(name: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[list[str]]:
    """The rows of one model."""
    rows = []
    for key, (label, form) in _METRICS.items():
        before, after = (f"{row[key]:{form}}" if row else "–" for row in (old, new))
        if before == after:
            continue
        change = "removed" if not new else "new"
        if old and new:
            change = f"{new[key] - old[key]:+{form}}"
            if key == "test_accuracy":
                within = old["test_accuracy_low"] <= new[key] <= old["test_accuracy_high"]
                change += ", within chance" if within else ", beyond chance"
        rows.append([_text(name), label, before, after, change])
    return rows


def _settings(before: Results | None, after: Results) -> str:
    if before is None:
        return "All are new."
    old, new = dict(_flat(before.settings)), dict(_flat(after.settings))
    rows = [
        [_text(path), _value(old, path), _value(new, path)]
        for path in {**old, **new}
        if (path in old, old.get(path)) != (path in new, new.get(path))
    ]
    if not rows:
        return "No change."
    table = _table(["Setting", "Before", "After"], rows)
    if len(rows) <= _MOST_SETTINGS:
        return table
    return f"<details><summary>{len(rows)} changes</summary>\n\n{table}\n\n</details>"


def _flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The settings by their full paths."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _value(settings: Mapping[str, Any], path: str) -> str:
    if path not in settings:
        return "–"
    return "empty" if settings[path] is None else _text(settings[path])


def _table(header: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown; what was and what is are aligned to the right."""
    lines = [header, ["---:" if name in ("Before", "After") else "---" for name in header], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: object) -> str:
    """A value from outside, such that it is text wherever it is put: no HTML, no end of a table's cell, no mention."""
    text = escape(" ".join(str(value).split()), quote=False)
    return text.translate({ord(sign): f"&#{ord(sign)};" for sign in _SIGNS})


def _number(value: str) -> bool | float | str:
    if value in ("True", "False"):
        return value == "True"
    try:
        return float(value)
    except ValueError:
        return value


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(map(_text, names[:-1])), *map(_text, names[-1:])]))
