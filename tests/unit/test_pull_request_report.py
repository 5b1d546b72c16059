"""The report on a change, of made-up numbers: whole reports as approved, and each property by itself."""

import json
import os
import re
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mnist_cnn.common.errors import InputError
from mnist_cnn.report.comparison import comparison_table
from mnist_cnn.settings.params import load
from tests.helpers import ROOT
from tests.results import model_result
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

GOLDEN = ROOT / "tests/unit/golden"
SETTINGS = load(ROOT / "params.yaml")
RECIPES: dict[str, Any] = {"model_4": {"epochs": 15, "max_lr": 0.02}, "model_5": {"epochs": 15, "max_lr": 0.2}}
PARAMS: dict[str, Any] = {
    "data": "mnist",
    "model": "model_5",
    "split": {"mnist": {"val": 5000}},
    "models": RECIPES,
    "targets": {"mnist": {"test_accuracy": 99.4, "max_epochs": 15, "parameters_below": 8000}},
}
SOURCE = Source(
    "https://github.com/owner/project",
    "0123456789abcdef0123456789abcdef01234567",
    "make repro",
    [f"https://github.com/owner/project/blob/0123456/plots/{name}.png?raw=true" for name in ("accuracy", "loss", "x")],
)


def row(name: str, wrong: int | None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """A model's row of the comparison: of 10,000 test images some are misclassified; None where it was not tested."""
    usual = {"parameters": 7_778, "train_accuracy": 99.6145, "val_accuracy": 99.46, "val_loss": 0.016204}
    model = model_result(name, test_errors=wrong, **usual | changes)
    return {str(key): value for key, value in comparison_table([model], SETTINGS.targets, {}).iloc[0].items()}


MODEL_4, MODEL_5 = row("model_4", 115, parameters=7_040), row("model_5", 46)


class Quoting(yaml.SafeDumper):
    """Writes all texts in quotation marks: 0E0 without them is a text to PyYAML, and a number in DVC's YAML 1.2."""


Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def results(*rows: dict[str, Any], selected: str = "model_5", **changes: Any) -> Results:  # noqa: ANN401
    """Results of models 4 and 5, or of those given, with some settings changed."""
    return parse_results(
        yaml.dump(PARAMS | changes, Dumper=Quoting, sort_keys=False),
        pd.DataFrame(rows or [MODEL_4, MODEL_5]).to_csv(index=False),
        json.dumps({"model": selected}),
        "<!-- Generated. -->\n| Model | Analysis |\n|---|---|\n| **model_5** | one<br>two |\n",
        "here",
    )


CASES = {
    "nothing_changed": (results(), results()),
    "better": (
        results(MODEL_4, row("model_5", 130, val_accuracy=98.7, parameters=9_000)),
        results(models=RECIPES | {"model_5": {"epochs": 15}}),
    ),
    "worse": (results(), results(MODEL_4, row("model_5", 61, val_loss=0.02))),
    "not_tested": (results(), results(MODEL_4, row("model_5", None, val_accuracy=99.56))),
    "model_added": (
        results(),
        results(
            MODEL_4,
            MODEL_5,
            row("model_6", 44, parameters=7_918),
            selected="model_6",
            model="model_6",
            models=RECIPES | {"model_6": {"epochs": 15}},
        ),
    ),
    "model_missing": (results(), results(MODEL_4, selected="model_4")),
    "first": (None, results()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_report_is_the_one_that_was_approved(case: str) -> None:
    """``GOLDEN=write python -m pytest`` writes what is to be looked at and committed."""
    before, here = CASES[case]
    text = report("Results at `0123456`", ["A note"], Base("main", "89abcdef01", before), here, SOURCE, ["A section."])
    path = GOLDEN / f"{case}.md"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


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
    large = results(row("model_5", 70, parameters=9_000))
    lines = report("Title", [], Base("main", "0123456", large), large, SOURCE).splitlines()
    assert lines[0] == "## Title"
    assert re.match(r"- ❌ .*`model_5` misses 99\.4 % .* 8,000.*99\.46 %.*99\.30 %.* 15 .* 9,000 ", lines[2])
    assert "no model (0 of 1)" in lines[3]


def test_models_that_begin_or_cease_to_meet_the_targets_are_named() -> None:
    before = results(row("model_4", 46), row("model_5", 90))
    after = results(row("model_4", 90), row("model_5", 46))
    line = verdict(Base("main", "0", before), after)[1]
    assert re.search(r"`model_5` \(1 of 2\); new .*`model_5`; no longer.* `model_4`$", line)


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        (46, 46, "no change"),
        (0, 0, "no change"),
        (46, 47, "99.54 → 99.53 % (▼ -0.01, worse, not significant)"),
        (60, 46, "99.40 → 99.54 % (▲ +0.14, better, not significant)"),
        (90, 46, "99.10 → 99.54 % (▲ +0.44, better, significant)"),
        (46, 90, "99.54 → 99.10 % (▼ -0.44, worse, significant)"),
    ],
)
def test_a_difference_is_told_with_its_significance(before: int, after: int, moved: str) -> None:
    lines = verdict(Base("main", "0", results(row("model_5", before))), results(row("model_5", after)))
    assert "`model_5`" in lines[-1] and "`main`" in lines[-1]
    assert lines[-1].endswith(f": {moved}")


def test_where_the_test_set_was_not_looked_at_validation_decides() -> None:
    before, here = results(), results(MODEL_4, row("model_5", None, val_accuracy=99.96))
    on_targets, meeting, moved = verdict(Base("main", "0", before), here)[:3]
    assert not re.search("meets all|misses", on_targets) and "99.96 % on validation" in on_targets
    assert "no longer: `model_5`" in meeting
    assert moved.endswith("99.46 → 99.96 % (▲ +0.50, better, significant)")
    assert "| `model_5` | Test accuracy, % | 99.54 | – | gone |" in metrics_changed(before, here)


@pytest.mark.parametrize(
    ("images", "accuracy", "difference"),
    [
        (5_000, 99.4, "+0.40, better, significant"),
        (5_000, 99.2, "+0.20, better, not significant"),
        (50_000, 99.2, "+0.20, better, significant"),
    ],
)
def test_validation_is_judged_by_its_own_number_of_images(images: int, accuracy: float, difference: str) -> None:
    """20 of 5,000 images are as many points as 200 of 50,000, and less certain."""
    before, here = (
        results(row("model_5", 46, val_accuracy=value), split={"val": images}) for value in (99.0, accuracy)
    )
    assert difference in metrics_changed(before, here)


def test_each_version_is_judged_by_its_own_number_of_validation_images() -> None:
    before, here = row("model_5", 46, val_accuracy=99.0), row("model_5", 46, val_accuracy=99.28)
    old, few, many = results(before), results(here), results(here, split={"val": 50_000})
    assert "+0.28, better, not significant" in metrics_changed(old, few)
    assert "+0.28, better, significant" in metrics_changed(old, many)


def test_a_metric_that_only_one_version_has_is_told_without_a_difference() -> None:
    new = row("model_5", 46)
    old = {key: value for key, value in new.items() if key != "val_loss"}
    assert "| – | 0.016204 | new |" in metrics_changed(results(old), results(new))
    assert "| 0.016204 | – | gone |" in metrics_changed(results(new), results(old))


def test_without_intervals_nothing_is_said_of_significance() -> None:
    old, new = row("model_5", 46), row("model_5", 90)
    for one in (old, new):
        del one["test_accuracy_low"]
    changed = metrics_changed(results(old), results(new))
    assert "▼ -0.44, worse |" in changed
    assert "significant" not in changed
    assert "| – |" in models_table(results(new))


def test_results_of_other_images_are_not_compared() -> None:
    targets, split = PARAMS["targets"]["mnist"], PARAMS["split"]["mnist"]
    params = PARAMS | {"data": "custom", "targets": {"custom": targets}, "split": {"custom": split}}
    texts = yaml.safe_dump(params), pd.DataFrame([MODEL_5]).to_csv(index=False), '{"model": "model_5"}', "", "main"
    own, other = (parse_results(*texts, raw) for raw in ("0123456789.dir", "abcdef0123.dir"))
    for base, here in ((results(), own), (own, other)):
        text = report("T", [], Base("main", "0", base), here, SOURCE)
        assert "Nothing to compare with" in text and f"`{base.data}`" in text and f"`{here.data}`" in text
        assert "against `main`: " not in text
    assert "against `main`: no change" in report("T", [], Base("main", "0", own), own, SOURCE)


def test_settings_of_before_there_were_other_data_sets_are_read() -> None:
    before = PARAMS | {key: PARAMS[key]["mnist"] for key in ("targets", "split")}
    del before["data"]
    texts = yaml.safe_dump(before), pd.DataFrame([MODEL_5]).to_csv(index=False), '{"model": "model_5"}', "", "main"
    assert parse_results(*texts).data == "mnist"


def test_only_what_differs_is_in_the_tables() -> None:
    changed = metrics_changed(results(), results(row("model_4", 115, parameters=7_041), MODEL_5))
    assert re.findall(r"^\| `.*", changed, re.MULTILINE) == ["| `model_4` | Parameters | 7,040 | 7,041 | ▲ +1, worse |"]
    assert "No change: `model_5`" in changed
    assert "significant" not in changed


def test_settings_are_told_by_full_path_with_both_values() -> None:
    models = {"model_4": {"epochs": 15, "max_lr": "0.02"}, "model_6": {"epochs": 3}}
    changed = results(models=models, evaluate={"batch_size": None})
    assert settings_changed(results(), changed).splitlines()[2:] == [
        '| `models.model_4.max_lr` | `0.02` | `"0.02"` |',
        '| `models.model_6` | – | `{"epochs": 3}` |',
        '| `models.model_5` | `{"epochs": 15, "max_lr": 0.2}` | – |',
        '| `evaluate` | – | `{"batch_size": null}` |',
    ]


def test_many_settings_are_folded() -> None:
    none, many = (results(train={f"setting_{number}": value for number in range(13)}) for value in (None, 1))
    assert settings_changed(none, many).startswith("<details>\n<summary>13 settings</summary>")
    assert settings_changed(results(), results()) == "No change."


def escaped(text: str) -> str:
    """A text in one line, not longer than is shown, as HTML."""
    line = " ".join(text.replace("\0", "\N{REPLACEMENT CHARACTER}").split())
    line = line if len(line) <= 120 else line[:120] + "…"
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


PLAIN_TAGS = set(re.findall("</?[^ >]+", rendered(report("T", [], Base("main", "0", None), results(), SOURCE))))


@settings(max_examples=50)
@given(st.text('a`|\\<>&!*@[]()"\n \u0085ü', max_size=30) | st.text(max_size=200))
@example("")
@example("</details>")
@example("![x](y)")
@example("a\\|b`c")
@example("0E0")
def test_foreign_text_stays_text(text: str) -> None:
    """In a cell, in a code span, and as the name of a branch."""
    html = rendered(settings_changed(results(), results(model=text)))
    assert len(re.findall("<td", html)) == 3
    [shown] = re.findall(r"<td[^>]*><code>([^\n]*)</code></td>\n</tr>", html)
    assert shown == escaped(json.dumps(text, ensure_ascii=False))

    assert "\n" not in code(text)
    assert rendered(f"x {code(text)} x") == f"<p>x <code>{escaped(text) or ' '}</code> x</p>\n"

    heading = rendered(report("T", [], Base(text, "0123456", None), results(), SOURCE))
    assert len(re.findall("<h3>", heading)) == 5
    assert heading.count("</details>") == 1
    assert set(re.findall("</?[^ >]+", heading)) == PLAIN_TAGS


def test_the_comparison_keeps_its_line_breaks_and_no_other_html() -> None:
    comparison = "| A |\n|---|\n| x<br>y </details><script>z</script> |\n"
    here = results()._replace(comparison=comparison)
    assert "x<br>y &lt;/details>&lt;script>z&lt;/script>" in report("T", [], Base("main", "0", None), here, SOURCE)


@pytest.mark.parametrize(
    ("made", "differs"),
    [
        (MODEL_5, None),
        (row("model_5", 52), r" 0\.06 points, not significant"),
        (row("model_5", 90), r" 0\.44 points, significant.* `model_5`"),
        (row("model_5", 46, val_loss=0.02), r" 0\.00 points, not significant"),
        (row("model_5", None), r" 0\.00 points, not significant"),
    ],
    ids=["the same", "not significant", "significant", "another loss", "not tested"],
)
def test_a_run_is_compared_with_what_is_committed(made: dict[str, Any], differs: str | None) -> None:
    line, sections = reproduction(results(), results(MODEL_4, made))
    assert line.startswith("⚠️" if differs else "✅") and "`make repro`" in line
    assert differs is None or re.search(differs, line)
    assert bool(sections) == bool(differs)


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        ({"params": "a: [", "where": "main"}, "main: "),
        ({"params": "[]"}, "damaged"),
        ({"params": yaml.safe_dump(PARAMS | {"targets": {}})}, "3 validation errors"),
        (
            {"params": yaml.safe_dump(PARAMS | {"split": {"mnist": {"val": 0}}})},
            "split.val: 0 is not allowed: at least 1",
        ),
        ({"numbers": ""}, "damaged"),
        ({"numbers": "model,parameters\nmodel_5,many\n"}, "many"),
        ({"numbers": pd.DataFrame([MODEL_5 | {"val_accuracy": None}]).to_csv(index=False)}, "'model_5'"),
        ({"selected": "{"}, "damaged"),
        ({"selected": '{"model": "model_9"}'}, "'model_9'"),
        ({"selected": "{}"}, "damaged"),
    ],
)
def test_damaged_texts_are_refused_in_a_line(texts: dict[str, str], fault: str) -> None:
    whole = {
        "params": yaml.safe_dump(PARAMS),
        "numbers": pd.DataFrame([MODEL_5]).to_csv(index=False),
        "selected": '{"model": "model_5"}',
        "comparison": "",
        "where": "here",
    }
    parse_results(**whole)
    with pytest.raises(InputError, match=re.escape(fault)) as refused:
        parse_results(**whole | texts)
    assert "damaged" in str(refused.value) and "\n" not in str(refused.value)
