"""From the results of two versions of the project to a report on the change, as GitHub shows Markdown.

Names, settings and whatever else is not this module's own text are put into code spans, where neither Markdown nor
HTML means anything.
"""

import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pandas as pd

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.yaml import parse_yaml
from mnist_cnn.evaluation.intervals import difference_interval, wilson_interval
from mnist_cnn.evaluation.metrics import DISPLAYS, TARGETS, Display, is_known, missed_targets
from mnist_cnn.report.markdown import table
from mnist_cnn.settings.params import Targets

_VALIDATION, _TEST = "val_accuracy", "test_accuracy"
_LONGEST_VALUE = 120  # characters
_MOST_ROWS = 12  # of settings that are shown without a click


# What a change is judged by; the rest of the metrics are shown on a click. Those of the test set may be missing.
_ALWAYS = (_VALIDATION, "parameters", "epochs")
_HEADLINE = (_VALIDATION, _TEST, "parameters", "epochs")
_COMPARED = {
    **{key: DISPLAYS[key] for key in _HEADLINE},
    **DISPLAYS,
    "receptive_field_px": Display("Receptive field, px"),
}
# Columns of the comparison that hold no figure.
_NAMES = ("model", "engine")
_SIGNIFICANCE = (
    "Significant: the 95 % interval of the difference, over other images of this kind, excludes zero. Another seed "
    "moves accuracies, too."
)


class Results(NamedTuple):
    """What a version of the project has of settings and measurements.

    ``params`` is params.yaml; ``numbers`` has, by the models' names, the columns of ``report.comparison_table``;
    ``selected`` is the model that the report presents; ``comparison`` is the table with its analysis, Markdown;
    ``data`` is the data set's name, of own images with the beginning of their files' hash.
    """

    params: dict[str, Any]
    targets: Targets
    val_images: int
    numbers: dict[str, dict[str, float]]
    selected: str
    comparison: str
    data: str

    @property
    def meeting(self) -> list[str]:
        """The models that are known to meet all targets."""
        return [name for name, row in self.numbers.items() if all(row[key] == 1 for key in TARGETS)]


def parse_results(params: str, numbers: str, selected: str, comparison: str, where: str, raw: str = "") -> Results:
    """Results from the texts of their files: YAML, CSV, JSON and Markdown.

    Args:
        where: the version, for messages.
        raw: the hash of the data set's files.

    Raises:
        InputError: a text is not what it should be, or tells nothing of the selected model.
    """
    try:
        settings = parse_yaml(params, "params.yaml")
        # Before version 0.5 there was MNIST alone, and its targets and split stood where those of each set are now.
        data = settings.get("data", "mnist")
        targets, split = (settings[key].get(data, settings[key]) for key in ("targets", "split"))
        targets, val_images = Targets.model_validate(targets), int(split["val"])
        if val_images < 1:
            raise ValueError(f"split.val: {val_images} is not allowed: at least 1")
        by_model = {}
        for row in pd.read_csv(io.StringIO(numbers), dtype={"model": str}).to_dict("records"):
            by_model[row["model"]] = {str(key): float(value) for key, value in row.items() if key not in _NAMES}
            if not {*TARGETS, _TEST} <= by_model[row["model"]].keys():
                raise ValueError("columns are missing")
            if not all(math.isfinite(by_model[row["model"]][key]) for key in _ALWAYS):
                raise ValueError(f"a figure of {row['model']!r} is missing")
        chosen = json.loads(selected)["model"]
        if chosen not in by_model:
            raise ValueError(f"nothing is known of the selected model {chosen!r}")
    except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
        fault = " ".join(str(error).split())
        raise InputError(f"{where}: settings or measurements are damaged: {fault}") from None
    # Own images of one version may be others than those of another.
    images = f"{data} {raw[:7]}".rstrip() if data == "custom" else data
    return Results(settings, targets, val_images, by_model, chosen, comparison, images)


class Base(NamedTuple):
    """What a change is compared with: a branch's name and the commit; ``results`` is None where it has none."""

    name: str
    revision: str
    results: Results | None

    def comparable(self, results: Results) -> Results | None:
        """The base's results, where there are some and they are of the same images as ``results``."""
        return self.results if self.results and self.results.data == results.data else None


class Source(NamedTuple):
    """Where the reported version can be had.

    ``repository`` is an address that Git knows, ``command`` makes the results at commit ``revision``; ``pictures`` are
    addresses, and there may be none.
    """

    repository: str
    revision: str
    command: str
    pictures: Sequence[str] = ()


def report(
    title: str, notes: Sequence[str], base: Base, results: Results, source: Source, sections: Sequence[str] = ()
) -> str:
    """The whole report: verdict, changed metrics, changed settings, all models, pictures, commands.

    Args:
        title, notes, sections: Markdown. Notes follow the verdict, a line each; sections the comparison.
    """
    against = f"{code(base.name)} at {code(base.revision[:7])}"
    comparable = base.comparable(results)
    parts = [
        f"## {title}",
        "\n".join(f"- {line}" for line in [*verdict(base, results), *notes]),
        f"### Metrics against {against}",
        metrics_changed(comparable, results) if comparable else "Nothing to compare with.",
        *sections,
        f"### Settings against {against}",
        settings_changed(base.results, results) if base.results else "Nothing to compare with.",
        "### All models",
        models_table(results),
        folded("The same with its analysis", _without_html(results.comparison)),
        *(["### Pictures", _pictures(source.pictures)] if source.pictures else []),
        "### How to reproduce",
        f"```bash\ngit fetch {source.repository} {source.revision}\ngit checkout {source.revision}\n"
        f"{source.command}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def verdict(base: Base, results: Results) -> list[str]:
    """Whether the selected model meets the targets, which models do, and how its accuracy has moved."""
    chosen, row = code(results.selected), results.numbers[results.selected]
    meeting, before = results.meeting, base.comparable(results)
    tested = "" if math.isnan(row[_TEST]) else f"{row[_TEST]:.2f} % on the test set, "
    lines = [
        f"{_on_targets(chosen, row, results.targets)}: {row[_VALIDATION]:.2f} % on validation, {tested}"
        f"{row['epochs']:.0f} epochs, {row['parameters']:,.0f} parameters",
        f"All three targets are met by {_listed(meeting) or 'no model'} ({len(meeting)} of {len(results.numbers)})"
        + (_newly_meeting(before.meeting, meeting) if before else ""),
    ]
    if base.results is None:
        return [*lines, f"{code(base.name)} has no results yet: there is nothing to compare with"]
    if before is None:
        sets = f"{code(results.data)}, those of {code(base.name)} of {code(base.results.data)}"
        return [*lines, f"These results are of the data set {sets}: they are not compared"]
    if before.selected != results.selected:
        lines.append(f"The selected model is {chosen}; on {code(base.name)} it is {code(before.selected)}")
    if results.selected in before.numbers:
        there, here = _Model.of(before, results.selected), _Model.of(results, results.selected)
        for what, key in (("Validation", _VALIDATION), ("Test", _TEST)):
            old, new = there.shown(key), here.shown(key)
            if here.value(key) is None:
                continue
            moved = "no change" if old == new else f"{old} → {new} % ({_difference(key, there, here)})"
            lines.append(f"{what} accuracy of {chosen} against {code(base.name)}: {moved}")
    return lines


def _on_targets(name: str, row: dict[str, float], targets: Targets) -> str:
    missed = missed_targets(row, targets)
    if missed:
        return f"❌ **{name} misses {' and '.join(missed)}**"
    if all(is_known(row[key]) for key in TARGETS):
        return f"✅ **{name} meets all three targets**"
    return f"❔ **{name} meets the targets of size and epochs**, and was not looked at on the test set"


def _newly_meeting(before: list[str], now: list[str]) -> str:
    new, lost = [name for name in now if name not in before], [name for name in before if name not in now]
    return (f"; new among them: {_listed(new)}" if new else "") + (f"; no longer: {_listed(lost)}" if lost else "")


def metrics_changed(base: Results, results: Results) -> str:
    """What differs from the base, as tables, and in words what does not."""
    before, after = list(base.numbers), list(results.numbers)
    common = [name for name in after if name in before]
    changed = {name: _changed(_Model.of(base, name), _Model.of(results, name)) for name in common}
    new, gone = [name for name in after if name not in before], [name for name in before if name not in after]
    same = [name for name in common if not changed[name]]
    if len(same) == len(before) == len(after):
        return "No change: all metrics of all models are the same."

    header, align = ["Model", "Metric", "Base", "Here", "Difference"], "llrrl"
    main = [row for rows in changed.values() for key, row in rows.items() if key in _HEADLINE]
    others = [row for rows in changed.values() for key, row in rows.items() if key not in _HEADLINE]
    parts = [
        table(header, main, align) if main else "",
        "\n".join(
            f"- {what}: {_listed(names)}"
            for what, names in {"New": new, "No longer there": gone, "No change": same}.items()
            if names
        ),
        _SIGNIFICANCE if any("significant" in row[-1] for row in main) else "",
        folded("Other metrics that changed", table(header, others, align)) if others else "",
    ]
    return "\n\n".join(filter(None, parts))


class Reproduction(NamedTuple):
    """Whether a run gave the committed results: in a line, and where it did not, how they differ."""

    line: str
    sections: list[str]


def reproduction(committed: Results, made: Results) -> Reproduction:
    """Whether what a run has made is what is committed, and if not, whether the difference is significant."""
    names = [name for name in committed.numbers if name in made.numbers]
    pairs = [(_Model.of(committed, name), _Model.of(made, name)) for name in names]
    if len(names) == len(committed.numbers) == len(made.numbers) and not any(_changed(*pair) for pair in pairs):
        return Reproduction("✅ `make repro` leaves the committed results as they are", [])
    keys = (_VALIDATION, _TEST)
    moved = [abs(here.row[key] - before.row[key]) for before, here in pairs for key in keys]
    largest = max((points for points in moved if not math.isnan(points)), default=0.0)
    significant = [here.name for before, here in pairs if any(_is_significant(key, before, here) for key in keys)]
    how = f"significantly for {_listed(significant)}" if significant else "not significantly"
    return Reproduction(
        f"⚠️ `make repro` gives other results here: accuracies differ by up to {largest:.2f} points, {how}",
        [folded("The committed results against those of this run", metrics_changed(committed, made))],
    )


class _Model(NamedTuple):
    """What is known of one model in one version."""

    name: str
    row: dict[str, float]
    val_images: int

    @classmethod
    def of(cls, results: Results, name: str) -> "_Model":
        return cls(name, results.numbers[name], results.val_images)

    def value(self, key: str) -> float | None:
        """A metric, where the version has it."""
        value = self.row.get(key)
        return None if value is None or math.isnan(value) else value

    def shown(self, key: str) -> str:
        """A metric with its usual decimals."""
        value = self.value(key)
        return "–" if value is None else _COMPARED[key].text(value)

    def bounds(self, key: str) -> tuple[float, float, float] | None:
        """An accuracy and its 95 % interval, in percent, where one is known."""
        value = self.value(key)
        if key == _VALIDATION and value is not None:
            return value, *wilson_interval(round(value * self.val_images / 100), self.val_images)
        low, high = self.value(f"{key}_low"), self.value(f"{key}_high")
        return None if value is None or low is None or high is None else (value, low, high)


def _changed(base: _Model, here: _Model) -> dict[str, list[str]]:
    """A table row for each metric of a model that differs."""
    return {
        key: [code(here.name), metric.label, base.shown(key), here.shown(key), _difference(key, base, here)]
        for key, metric in _COMPARED.items()
        if base.shown(key) != here.shown(key)
    }


def _difference(key: str, base: _Model, here: _Model) -> str:
    """The difference with its sign, and what it is worth."""
    metric, old, new = _COMPARED[key], base.value(key), here.value(key)
    if old is None or new is None:
        return "new" if old is None else "gone"
    words = [f"{'▲ +' if new > old else '▼ -'}{metric.text(abs(new - old))}"]
    if metric.better:
        words.append("better" if (new - old) * metric.better > 0 else "worse")
    significant = _is_significant(key, base, here)
    if significant is not None:
        words.append("significant" if significant else "not significant")
    return ", ".join(words)


def _is_significant(key: str, base: _Model, here: _Model) -> bool | None:
    """Whether the interval of a difference leaves out zero; None of a metric without intervals."""
    first, second = base.bounds(key), here.bounds(key)
    if first is None or second is None:
        return None
    low, high = difference_interval(first, second)
    return not low <= 0 <= high


def settings_changed(base: Results, results: Results) -> str:
    """A table of the settings that differ from the base, by full path; folded where it is long."""
    rows = [
        [code(path), _setting(old), _setting(new)] for path, old, new in _differing(base.params, results.params, "")
    ]
    if not rows:
        return "No change."
    text = table(["Setting", "Base", "Here"], rows, "lll")
    return text if len(rows) <= _MOST_ROWS else folded(f"{len(rows)} settings", text)


_ABSENT = object()


def _differing(old: object, new: object, path: str) -> Iterator[tuple[str, object, object]]:
    """Path and both values of what differs; a section that only one side has is one difference."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            below = f"{path}.{key}" if path else str(key)
            yield from _differing(old.get(key, _ABSENT), new.get(key, _ABSENT), below)
    elif old != new or type(old) is not type(new):
        yield path, old, new


def _setting(value: object) -> str:
    if value is _ABSENT:
        return "–"
    return code(json.dumps(value, ensure_ascii=False, default=str))


def models_table(results: Results) -> str:
    """All models in a few columns, the selected one in bold."""
    rows = []
    for name, row in results.numbers.items():
        model = _Model.of(results, name)
        bounds, known = model.bounds(_TEST), [row[key] for key in TARGETS if is_known(row[key])]
        strong = "**" if name == results.selected else ""
        rows.append(
            [
                f"{strong}{code(name)}{strong}",
                model.shown("parameters"),
                model.shown("epochs"),
                model.shown(_VALIDATION),
                f"{strong}{model.shown(_TEST)}{strong}",
                f"{bounds[1]:.2f} to {bounds[2]:.2f}" if bounds else "–",
                f"{sum(known):.0f} of {len(known)}" + ("" if len(known) == len(TARGETS) else ", not tested"),
            ]
        )
    header = ["Model", "Parameters", "Epochs", "Validation, %", "Test, %", "95 % interval", "Targets met"]
    return table(header, rows, "lrrrrrl")


def _pictures(addresses: Sequence[str]) -> str:
    """Pictures, two a row, each with the letters of its file's name for those who cannot see it."""
    names = [re.sub(r"\W", "", PurePosixPath(unquote(urlsplit(address).path)).stem) for address in addresses]
    cells = [f"![{name}]({address})" for name, address in zip(names, addresses, strict=True)]
    return table(["", ""], [[*cells[i : i + 2], ""][:2] for i in range(0, len(cells), 2)], "ll")


def folded(summary: str, content: str) -> str:
    """Content that opens on a click."""
    return f"<details>\n<summary>{summary}</summary>\n\n{content.strip()}\n\n</details>"


def code(value: object) -> str:
    """A value as a code span, in one line."""
    text = " ".join(str(value).split()) or " "
    if len(text) > _LONGEST_VALUE:
        text = text[:_LONGEST_VALUE] + "…"
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, pad = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(code, names))


def _without_html(comparison: str) -> str:
    """The comparison table without HTML comments; of its HTML, line breaks alone stay what they are."""
    return re.sub(r"<(?!br>)", "&lt;", re.sub(r"<!--.*?-->", "", comparison, flags=re.DOTALL))
