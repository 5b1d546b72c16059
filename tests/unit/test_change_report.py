"""The report on a change, against pages that were read and found good."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_cnn.change_report import Results, change_report, load_results
from mnist_cnn.errors import InputError
from stages import change_report as stage

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {
    "model": "model_5",
    "models": {"model_5": {"max_lr": 0.1, "augmentation": {"shift_px": 2.0}}},
    "targets": {"test_accuracy": 99.4, "max_epochs": 15, "parameters_below": 8000},
}


def model(test_accuracy: float, parameters: int = 7778, **others: object) -> dict[str, Any]:
    return {
        "test_accuracy": test_accuracy,
        "test_accuracy_low": test_accuracy - 0.15,
        "test_accuracy_high": test_accuracy + 0.11,
        "val_accuracy": 99.46,
        "train_accuracy": 99.61,
        "parameters": parameters,
        "epochs": 15,
        "meets_accuracy_target": test_accuracy >= 99.4,
        "meets_epochs_target": True,
        "meets_parameters_target": parameters < 8000,
        **others,
    }


def results(models: dict[str, dict[str, Any]], settings: dict[str, Any] = SETTINGS) -> Results:
    selected = {"model": settings["model"], **models[settings["model"]]}
    return Results(settings, selected, models, "| Model |\n|---|\n| **model_5** |\n")


OLD = results({"model_3": model(99.36, 14586), "model_5": model(99.48)})
FASTER = {**SETTINGS, "models": {"model_5": {"max_lr": 0.2, "augmentation": {"shift_px": 2.0}}}}
CASES: dict[str, tuple[Results | None, Results, list[str]]] = {
    "nothing_changed": (OLD, OLD, []),
    "better": (OLD, results({"model_3": model(99.36, 14586), "model_5": model(99.54)}, FASTER), []),
    "worse": (
        OLD,
        results({"model_3": model(99.36, 14586), "model_5": model(99.21, val_accuracy=99.1)}, FASTER),
        ["metrics/model_5.json", "dvc.lock"],
    ),
    "model_added": (OLD, results({**OLD.models, "model_8": model(99.55, 7001)}, {**SETTINGS, "model": "model_8"}), []),
    "model_missing": (OLD, results({"model_5": OLD.models["model_5"]}), []),
    "first_ever": (None, OLD, []),
}


@pytest.mark.parametrize("name", CASES)
def test_the_page_is_the_golden_one(name: str) -> None:
    before, after, altered = CASES[name]
    page = change_report(
        "Results at abc1234", before, after, altered, "https://example.org/pictures", ["git checkout abc", "make repro"]
    )
    assert page == (GOLDEN / f"{name}.md").read_text()


def test_there_is_a_golden_page_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.md")} == set(CASES)


def test_the_verdict_comes_first_and_no_change_is_said_in_words() -> None:
    page = change_report("T", OLD, OLD, [], None, [])
    assert page.splitlines()[2].startswith("✅ **model_5 meets all three targets**")
    assert page.count("No change.") == 2
    assert "![" not in page


def test_many_changed_settings_are_folded() -> None:
    many = results(OLD.models, {**SETTINGS, "more": dict.fromkeys(map(str, range(16)), 0)})
    assert "<details><summary>16 changes</summary>" in change_report("T", OLD, many, [], None, [])


def test_values_from_outside_stay_text() -> None:
    bad = "x|y</details><img src=x>`@everyone [a](b)\n# big"
    after = results(OLD.models, {**SETTINGS, "note": bad})
    page = change_report(bad, OLD, after, [bad], None, [])
    for sign in ("</details><img", "x|y", "`@", "@everyone", "[a]", "\n# big"):
        assert sign not in page
    [row] = [line for line in page.splitlines() if line.startswith("| note |")]
    assert row.count("|") == 4


def test_the_command_compares_two_folders(tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / name / "metrics").mkdir(parents=True)
        for path in ("params.yaml", "metrics/selected.json", "metrics/comparison.csv", "metrics/comparison.md"):
            (tmp_path / name / path).write_text((ROOT / path).read_text())
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["models"]["model_1"]["max_lr"] = 0.5
    (tmp_path / "after/params.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "altered").write_text("metrics/model_1.json\n")
    report = tmp_path / "report/report.md"
    folders = (tmp_path / "before", tmp_path / "after", tmp_path / "altered")
    stage.main("Of a change", *folders, pictures="", reproduce="make repro\nmake test", report=report)
    page = report.read_text()
    assert page.startswith("## Of a change\n")
    assert "| models.model_1.max_lr | 0.015 | 0.5 |" in page
    assert "metrics/model_1.json came out otherwise" in page
    assert "make repro\nmake test\n" in page
    with (ROOT / "metrics/comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    loaded = load_results(ROOT)
    assert loaded
    assert [loaded.models[row["model"]]["test_accuracy"] for row in rows] == [
        float(row["test_accuracy"]) for row in rows
    ]
    selected = json.loads((ROOT / "metrics/selected.json").read_text())
    assert f"{selected['test_accuracy']:.2f} % of the test set" in page


def test_folders_without_results_and_damaged_ones(tmp_path: Path) -> None:
    assert load_results(tmp_path) is None
    (tmp_path / "altered").touch()
    with pytest.raises(InputError, match="has no results"):
        stage.main("T", tmp_path, tmp_path, tmp_path / "altered", "", "", tmp_path / "report.md")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/selected.json").write_text("{")
    with pytest.raises(InputError, match="its results cannot be read"):
        load_results(tmp_path)
    assert not (tmp_path / "report.md").exists()
