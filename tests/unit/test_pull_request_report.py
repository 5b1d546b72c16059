"""What the report on a change says, of numbers that are made up: golden Markdown, and each property by itself."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt

from tools.pull_request.report import (
    Base,
    Results,
    Source,
    code,
    metrics_changed,
    models_table,
    parse_results,
    report,
    reproduction,
    settings_changed,
    verdict,
)
from mnist_cnn.common.errors import InputError
from mnist_cnn.metrics import wilson_interval

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = {
    "model": "model_5",
    "split": {"val": 5000},
    "models": {"model_4": {"epochs": 15, "max_lr": 0.02}, "model_5": {"epochs": 15, "max_lr": 0.2}},
    "targets": {"test_accuracy": 99.4, "max_epochs": 15, "parameters_below": 8000},
}
SOURCE = Source(
    "https://github.com/owner/project",
    "0123456789abcdef0123456789abcdef01234567",
    "make repro",
    [f"https://raw.githubusercontent.com/owner/project/0123456/plots/{name}.png" for name in ("accuracy", "loss", "x")],
)


def model(name: str, misread: int, **metrics: Any) -> dict[str, Any]:  # noqa: ANN401
    """A row of the comparison: of 10,000 test images some are misread."""
    low, high = wilson_interval(10_000 - misread, 10_000)
    accuracy = 100 - misread / 100
    return {
        "model": name,
        "parameters": 7_778,
        "epochs": 15,
        "train_accuracy": 99.6145,
        "val_accuracy": 99.46,
        "test_accuracy": accuracy,
        "test_loss": 0.016204,
        "generalization_gap": round(99.6145 - accuracy, 4),
        "meets_accuracy_target": accuracy >= 99.4,
        "meets_epochs_target": True,
        "meets_parameters_target": metrics.get("parameters", 7_778) < 8000,
        "test_accuracy_low": round(low, 4),
        "test_accuracy_high": round(high, 4),
        "reference_test_accuracy": None,
        "engine": "native",
        **metrics,
    }


def results(*models: dict[str, Any], selected: str = "model_5", settings: dict[str, Any] | None = None) -> Results:
    return parse_results(
        yaml.safe_dump(settings or SETTINGS, sort_keys=False),
        pd.DataFrame(models or [model("model_4", 115, parameters=7_040), model("model_5", 46)]).to_csv(index=False),
        json.dumps({"model": selected}),
        "<!-- Generated. -->\n| Model | Analysis |\n|---|---|\n| **model_5** | one<br>two |\n",
        "here",
    )


def with_settings(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    return SETTINGS | changes


CASES = {
    "nothing_changed": (results(), results()),
    "better": (
        results(model("model_4", 115, parameters=7_040), model("model_5", 130, val_accuracy=98.7, parameters=9_000)),
        results(
            settings=with_settings(models={"model_4": SETTINGS["models"]["model_4"], "model_5": {"epochs": 15}})  # type: ignore[index]
        ),
    ),
    "worse": (results(), results(model("model_4", 115, parameters=7_040), model("model_5", 61, test_loss=0.02))),
    "model_added": (
        results(),
        results(
            model("model_4", 115, parameters=7_040),
            model("model_5", 46),
            model("model_6", 44, parameters=7_918),
            selected="model_6",
            settings=with_settings(model="model_6", models=SETTINGS["models"] | {"model_6": {"epochs": 15}}),  # type: ignore[operator]
        ),
    ),
    "model_missing": (results(), results(model("model_4", 115, parameters=7_040), selected="model_4")),
    "first": (None, results()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_report_is_the_one_that_was_approved(case: str) -> None:
    """``GOLDEN=write python -m pytest`` writes what is to be looked at and committed."""
    before, here = CASES[case]
    told = report("Results at `0123456`", ["A note"], Base("main", "89abcdef01", before), here, SOURCE, ["A section."])
    path = GOLDEN / f"{case}.md"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(told, encoding="utf-8")
    assert told == path.read_text(encoding="utf-8")


def test_every_golden_report_has_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.md")} == set(CASES)


def rendered(markdown: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))


@pytest.mark.parametrize("case", CASES)
def test_every_report_is_whole_as_html(case: str) -> None:
    """Every table is one, with cells as wide as its header, and what opens closes."""
    html = rendered((GOLDEN / f"{case}.md").read_text(encoding="utf-8"))
    assert html.count("<details>") == html.count("</details>") == html.count("<summary>")
    for table in re.findall(r"<table>.*?</table>", html, re.DOTALL):
        widths = {len(re.findall("<t[hd]", row)) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)}
        assert len(widths) == 1
    assert not re.search(r"<p>[^<]*\|", html), "a table that is none"


def test_the_verdict_comes_first_and_names_what_is_missed() -> None:
    large = results(model("model_5", 70, parameters=9_000))
    told = report("Title", [], Base("main", "0123456", large), large, SOURCE).splitlines()
    assert told[:3] == [
        "## Title",
        "",
        "- ❌ **`model_5` misses 99.4 % accuracy and fewer than 8,000 parameters**: 99.30 % on the test set, "
        "15 epochs, 9,000 parameters",
    ]
    assert told[3] == "- All three are met by no model (0 of 1)"


def test_models_that_begin_or_cease_to_meet_the_targets_are_named() -> None:
    before = results(model("model_4", 46), model("model_5", 90))
    after = results(model("model_4", 90), model("model_5", 46))
    assert verdict(Base("main", "0", before), after)[1] == (
        "All three are met by `model_5` (1 of 2); new among them: `model_5`; no longer: `model_4`"
    )


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (46, 46, "no change"),
        (46, 47, "99.54 → 99.53 % (▼ -0.01, worse, within chance)"),
        (60, 46, "99.40 → 99.54 % (▲ +0.14, better, within chance)"),
        (90, 46, "99.10 → 99.54 % (▲ +0.44, better, beyond chance)"),
        (46, 90, "99.54 → 99.10 % (▼ -0.44, worse, beyond chance)"),
        (0, 0, "no change"),
    ],
)
def test_a_difference_is_told_with_what_chance_can_explain(before: int, after: int, told: str) -> None:
    lines = verdict(Base("main", "0", results(model("model_5", before))), results(model("model_5", after)))
    assert lines[-1] == f"Test accuracy of `model_5` against `main`: {told}"


def test_validation_is_judged_by_its_own_number_of_images() -> None:
    """20 of 5,000 images are as many points as 40 of 10,000, and less certain."""
    before = results(model("model_5", 46, val_accuracy=99.0))
    many, few = with_settings(split={"val": 50_000}), with_settings(split={"val": 5_000})
    here = model("model_5", 46, val_accuracy=99.4)
    certain = results(model("model_5", 46, val_accuracy=99.0), settings=many), results(here, settings=many)
    assert "+0.40, better, beyond chance" in metrics_changed(*certain)
    assert "+0.40, better, beyond chance" in metrics_changed(before, results(here, settings=few))
    assert "+0.20, better, within chance" in metrics_changed(before, results(here | {"val_accuracy": 99.2}))
    assert "+0.20, better, beyond chance" in metrics_changed(
        certain[0], results(here | {"val_accuracy": 99.2}, settings=many)
    )


def test_a_metric_that_only_one_version_has_is_told_without_a_difference() -> None:
    old, new = model("model_5", 46), model("model_5", 46)
    del old["test_loss"]
    assert "| `model_5` | Test loss, nats | – | 0.016204 | new |" in metrics_changed(results(old), results(new))
    assert "| `model_5` | Test loss, nats | 0.016204 | – | gone |" in metrics_changed(results(new), results(old))


def test_without_intervals_nothing_is_said_of_chance() -> None:
    old, new = model("model_5", 46), model("model_5", 90)
    for row in (old, new):
        del row["test_accuracy_low"]
    told = metrics_changed(results(old), results(new))
    assert "▼ -0.44, worse |" in told
    assert "chance" not in told
    assert "| – |" in models_table(results(new))


def test_only_what_differs_is_in_the_tables() -> None:
    told = metrics_changed(results(), results(model("model_4", 115, parameters=7_041), model("model_5", 46)))
    assert re.findall(r"^\| `.*", told, re.MULTILINE) == ["| `model_4` | Parameters | 7,040 | 7,041 | ▲ +1, worse |"]
    assert "- No change: `model_5`" in told
    assert "chance" not in told


def test_settings_are_told_by_full_path_with_both_values() -> None:
    changed = with_settings(
        models={"model_4": {"epochs": 15, "max_lr": "0.02"}, "model_6": {"epochs": 3}}, evaluate={"batch_size": None}
    )
    assert settings_changed(results(), results(settings=changed)).splitlines()[2:] == [
        '| `models.model_4.max_lr` | `0.02` | `"0.02"` |',
        '| `models.model_6` | – | `{"epochs": 3}` |',
        '| `models.model_5` | `{"epochs": 15, "max_lr": 0.2}` | – |',
        '| `evaluate` | – | `{"batch_size": null}` |',
    ]


def test_many_settings_are_folded() -> None:
    many = with_settings(train={f"setting_{number}": number for number in range(13)})
    none = with_settings(train={f"setting_{number}": None for number in range(13)})
    assert settings_changed(results(settings=none), results(settings=many)).startswith(
        "<details>\n<summary>13 settings</summary>"
    )
    assert settings_changed(results(), results()) == "No change."


@pytest.mark.parametrize(
    "text",
    [
        "a|b",
        "`",
        "a`` b",
        "<b>x</b>",
        "</details>",
        "![x](y)",
        "*x*",
        "a\nb|c",
        "@owner",
        "a\\|b",
        "a\\\\|b",
        "ü" * 300,
        "",
    ],
)
def test_a_foreign_text_stays_text(text: str) -> None:
    """In a table's cell, and behind the name of a branch."""
    here = results(settings=with_settings(model=text))
    html = rendered(settings_changed(results(), here))
    assert len(re.findall("<td", html)) == 3
    [shown] = re.findall(r"<td[^>]*><code>([^\n]*)</code></td>\n</tr>", html)
    wanted = json.dumps(text, ensure_ascii=False)
    wanted = wanted if len(wanted) <= 120 else wanted[:120] + "…"
    escaped = wanted.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    assert shown == escaped

    heading = rendered(report("T", [], Base(text, "0123456", None), results(), SOURCE))
    assert len(re.findall("<h3>", heading)) == 5
    assert heading.count("</details>") == 1
    assert "<b>" not in heading


def test_a_pipe_is_escaped_whatever_stands_before_it() -> None:
    """GitHub reads backslashes in pairs: where their number is even, the cell would end."""
    here = results()
    for backslashes in range(4):
        name = "a" + "\\" * backslashes + "|b"
        table = models_table(here._replace(numbers={name: here.numbers["model_5"]}))
        [found] = re.findall(r"a(\\*)\|b", table)
        assert len(found) % 2 == 1


def test_a_code_span_is_never_empty_nor_of_several_lines() -> None:
    assert code("") == "` `"
    assert code(" a \n b ") == "`a b`"
    assert code("a`b") == "`` a`b ``"


def test_the_comparison_keeps_its_line_breaks_and_no_other_html() -> None:
    comparison = "| A |\n|---|\n| x<br>y </details><script>z</script> |\n"
    here = results()._replace(comparison=comparison)
    told = report("T", [], Base("main", "0", None), here, SOURCE)
    assert "x<br>y &lt;/details>&lt;script>z&lt;/script>" in told


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (results(), "✅ `make repro` leaves the committed results as they are"),
        (
            results(model("model_4", 115, parameters=7_040), model("model_5", 52)),
            "⚠️ `make repro` gives other results here: test accuracies differ by up to 0.06 points, within chance",
        ),
        (
            results(model("model_4", 115, parameters=7_040), model("model_5", 90)),
            "⚠️ `make repro` gives other results here: test accuracies differ by up to 0.44 points, "
            "for `model_5` beyond chance",
        ),
        (
            results(model("model_4", 115, parameters=7_040), model("model_5", 46, test_loss=0.02)),
            "⚠️ `make repro` gives other results here: test accuracies differ by up to 0.00 points, within chance",
        ),
    ],
    ids=["the same", "within chance", "beyond chance", "another loss"],
)
def test_a_run_is_compared_with_what_is_committed(made: Results, line: str) -> None:
    told = reproduction(results(), made)
    assert told.line == line
    assert bool(told.sections) == line.startswith("⚠️")


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        ({"params": "a: [", "where": "main"}, "main: settings or measurements are damaged: "),
        ({"params": "[]"}, "damaged"),
        ({"params": yaml.safe_dump(with_settings(targets={}))}, "damaged: 3 validation errors"),
        ({"params": yaml.safe_dump(with_settings(split={"val": 0}))}, "split.val: 0 is not allowed: at least 1"),
        ({"numbers": ""}, "damaged"),
        ({"numbers": "model,parameters\nmodel_5,many\n"}, "many"),
        (
            {"numbers": pd.DataFrame([model("model_5", 1, val_accuracy=None)]).to_csv(index=False)},
            "'model_5' is missing",
        ),
        ({"selected": "{"}, "damaged"),
        ({"selected": '{"model": "model_9"}'}, "nothing is known of the selected model 'model_9'"),
        ({"selected": "{}"}, "damaged"),
    ],
)
def test_damaged_texts_are_refused_in_a_line(texts: dict[str, str], fault: str) -> None:
    whole = {
        "params": yaml.safe_dump(SETTINGS),
        "numbers": pd.DataFrame([model("model_5", 46)]).to_csv(index=False),
        "selected": '{"model": "model_5"}',
        "comparison": "",
        "where": "here",
    }
    parse_results(**whole)
    with pytest.raises(InputError, match=re.escape(fault)) as refused:
        parse_results(**whole | texts)
    assert "\n" not in str(refused.value)
