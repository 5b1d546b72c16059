"""What the report says of numbers that are made up: every sentence in both directions, and the tables."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from mnist_cnn.engine.checkpoint import save_weights
from mnist_cnn.data import Images, save_images
from mnist_cnn.common.errors import InputError
from mnist_cnn.models import build
from mnist_cnn.settings.params import Params, Step, Targets, load
from mnist_cnn.report import (
    Measured,
    analysis,
    comparison_markdown,
    comparison_table,
    confusion_table,
    curves,
    load_measured,
)
from stages import evaluate
from tests.pipeline.small_project import few_digits

FILE = Path(__file__).parents[2] / "params.yaml"
TARGETS = Targets(test_accuracy=99.4, max_epochs=15, parameters_below=8000)
# True digit, the digit it is taken for, how often.
Mistake = tuple[int, int, int]


def measured(name: str = "model_2", mistakes: list[Mistake] | None = None, **metrics: Any) -> Measured:  # noqa: ANN401
    """A model that knows 10,000 images, 1,000 a digit, but for its mistakes."""
    confusion = (1000 * torch.eye(10, dtype=torch.int64)).tolist()
    for digit, taken_for, count in mistakes or []:
        confusion[digit][digit] -= count
        confusion[digit][taken_for] += count
    wrong = sum(count for _, _, count in mistakes or [])
    accuracy = 100 - wrong / 100
    return Measured(
        name,
        {
            "parameters": 7000,
            "epochs": 15,
            "train_accuracy": 99.7,
            "val_accuracy": 99.3,
            "test_accuracy": accuracy,
            "generalization_gap": 0.1,
            "meets_accuracy_target": accuracy >= 99.4,
            "meets_epochs_target": True,
            "meets_parameters_target": True,
            **metrics,
        },
        receptive_field_px=20,
        confusion=confusion,
        misread=[{}] * wrong,
        history=pd.DataFrame({"epoch": [1, 2], "val_accuracy": [98.0, 99.3]}),
    )


def told_params(**story: Step) -> Params:
    params = load(FILE)
    report = params.report.model_copy(update={"story": story})
    return params.model_copy(update={"targets": TARGETS, "report": report})


def step(target: str = "less", parameters: str | None = "14.5k") -> Step:
    return Step(target=target, reference_parameters=parameters, reference_train_accuracy=99.54, reference_test_accuracy=98.8)


def test_a_first_model_is_analysed_by_itself_and_the_next_beside_it() -> None:
    first = measured("model_1", [(8, 3, 100)], parameters=10_000, generalization_gap=0.7, meets_parameters_target=False)
    second = measured("model_2", [(5, 6, 20)], generalization_gap=-0.1)
    assert analysis(first, None, TARGETS) == [
        "10,000 parameters: 1.2 times the limit of 8,000",
        "Overfits: training accuracy is 0.70 points above test",
        "0.40 points short of 99.4 % on the test set, beyond chance (98.79 to 99.18)",
        "Weakest on the digit 8 (90.0 % recognised), most often taken for 3",
        "Misses 99.4 % accuracy and fewer than 8,000 parameters",
    ]
    assert analysis(second, first, TARGETS) == [
        "7,000 parameters: under 8,000, with 1,000 to spare",
        "Does not overfit: training accuracy is 0.10 points below test; 0.80 points narrower than model_1's gap",
        "Reaches 99.4 % on the test set, beyond chance (99.69 to 99.87)",
        "0.80 points more test accuracy than model_1, with 30% fewer parameters",
        "Weakest on the digit 5 (98.0 % recognised), most often taken for 6",
        "**Meets all three targets**",
    ]


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (7_999, "7,999 parameters: under 8,000, with 1 to spare"),
        (8_000, "8,000 parameters: 1.0 times the limit of 8,000"),
        (28_954, "28,954 parameters: 3.6 times the limit of 8,000"),
    ],
)
def test_parameters_are_told_against_their_limit(parameters: int, sentence: str) -> None:
    assert analysis(measured(parameters=parameters), None, TARGETS)[0] == sentence


@pytest.mark.parametrize(
    ("gap", "sentence"),
    [
        (0.21, "Overfits: training accuracy is 0.21 points above test"),
        (0.20, "Does not overfit measurably: training accuracy is 0.20 points above test"),
        (0.0, "Does not overfit measurably: training accuracy is 0.00 points above test"),
        (-0.35, "Does not overfit: training accuracy is 0.35 points below test"),
    ],
)
def test_a_model_overfits_when_training_is_well_above_test(gap: float, sentence: str) -> None:
    assert analysis(measured(generalization_gap=gap), None, TARGETS)[1] == sentence


@pytest.mark.parametrize(
    ("gap", "before", "end"),
    [
        (0.5, 0.2, "above test; 0.30 points wider than model_1's gap"),
        (0.1, 0.7, "above test; 0.60 points narrower than model_1's gap"),
        (-0.1, 0.1, "below test; 0.20 points narrower than model_1's gap"),
        (0.104, 0.1, "above test, as for model_1"),
        (0.1, 0.104, "above test, as for model_1"),
    ],
)
def test_a_gap_is_compared_with_that_of_the_model_before(gap: float, before: float, end: str) -> None:
    previous = measured("model_1", generalization_gap=before)
    assert analysis(measured(generalization_gap=gap), previous, TARGETS)[1].endswith(f" points {end}")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            60,
            "Reaches 99.4 % on the test set; with 10,000 images the target lies within chance (99.23 to 99.53)",
        ),
        (40, "Reaches 99.4 % on the test set, beyond chance (99.46 to 99.71)"),
        (
            61,
            "0.01 points short of 99.4 % on the test set; "
            "with 10,000 images the target lies within chance (99.22 to 99.52)",
        ),
        (100, "0.40 points short of 99.4 % on the test set, beyond chance (98.79 to 99.18)"),
    ],
)
def test_accuracy_is_told_against_its_target_and_chance(wrong: int, sentence: str) -> None:
    assert analysis(measured(mistakes=[(4, 9, wrong)]), None, TARGETS)[2] == sentence


@pytest.mark.parametrize(
    ("wrong", "parameters", "sentence"),
    [
        (50, 10_000, "0.50 points more test accuracy than model_1, with as many parameters"),
        (150, 10_000, "0.50 points less test accuracy than model_1, with as many parameters"),
        (99, 10_000, "0.01 points more test accuracy than model_1, with as many parameters"),
        (101, 10_000, "0.01 points less test accuracy than model_1, with as many parameters"),
        (100, 10_000, "As much test accuracy as model_1, with as many parameters"),
        (100, 15_000, "As much test accuracy as model_1, with 50% more parameters"),
        (50, 10_049, "0.50 points more test accuracy than model_1, with as many parameters"),
        (50, 15_000, "0.50 points more test accuracy than model_1, with 50% more parameters"),
        (150, 15_000, "0.50 points less test accuracy than model_1, with 50% more parameters"),
        (50, 2_500, "0.50 points more test accuracy than model_1, with 75% fewer parameters"),
        (150, 2_500, "0.50 points less test accuracy than model_1, with 75% fewer parameters"),
    ],
)
def test_accuracy_and_size_are_compared_with_those_of_the_model_before(
    wrong: int, parameters: int, sentence: str
) -> None:
    previous = measured("model_1", [(4, 9, 100)], parameters=10_000)
    model = measured(mistakes=[(4, 9, wrong)], parameters=parameters)
    assert analysis(model, previous, TARGETS)[3] == sentence


@pytest.mark.parametrize(
    ("mistakes", "sentence"),
    [
        ([(8, 3, 20), (8, 2, 10), (4, 9, 25)], "Weakest on the digit 8 (97.0 % recognised), most often taken for 3"),
        ([(0, 9, 1)], "Weakest on the digit 0 (99.9 % recognised), most often taken for 9"),
        ([(9, 0, 600)], "Weakest on the digit 9 (40.0 % recognised), most often taken for 0"),
        ([], "Recognises every test image"),
    ],
)
def test_the_weakest_digit_and_what_it_is_taken_for_are_named(mistakes: list[Mistake], sentence: str) -> None:
    assert analysis(measured(mistakes=mistakes), None, TARGETS)[3] == sentence


def test_the_weakest_digit_is_that_of_the_smallest_share_and_not_of_a_count() -> None:
    model = measured(mistakes=[(4, 9, 20), (1, 7, 10)])
    model.confusion[1][1], model.confusion[2][2] = 90, 50
    assert "the digit 1 (90.0 % recognised)" in analysis(model, None, TARGETS)[3]


@pytest.mark.parametrize(
    ("accuracy", "epochs", "parameters", "verdict"),
    [
        (True, True, True, "**Meets all three targets**"),
        (False, True, True, "Misses 99.4 % accuracy"),
        (True, False, True, "Misses at most 15 epochs"),
        (True, True, False, "Misses fewer than 8,000 parameters"),
        (True, False, False, "Misses at most 15 epochs and fewer than 8,000 parameters"),
        (False, False, False, "Misses 99.4 % accuracy and at most 15 epochs and fewer than 8,000 parameters"),
    ],
)
def test_the_verdict_names_the_targets_missed(accuracy: bool, epochs: bool, parameters: bool, verdict: str) -> None:
    model = measured(meets_accuracy_target=accuracy, meets_epochs_target=epochs, meets_parameters_target=parameters)
    assert analysis(model, None, TARGETS)[-1] == verdict


def cells(markdown: str) -> list[list[str]]:
    """The table's cells below its head, a row a list; a pipe behind a backslash does not end a cell."""
    _, head, rule, *rows = markdown.partition("\n\n")[0].splitlines()
    assert head == "| Model | Target | Result (the brief's in brackets) | Analysis |"
    assert rule == "|---|---|---|---|"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_the_table_has_a_row_a_model_and_the_briefs_figures_in_brackets() -> None:
    models = [measured("model_1", [(8, 3, 100)], parameters=14_478), measured("model_2")]
    params = told_params(model_1=step("a skeleton"), model_2=step("half | of \\it"))
    first, second = cells(comparison_markdown(models, params))
    assert first[:3] == [
        "**model_1**",
        "a skeleton",
        "Parameters: 14,478 (14.5k)<br>Training: 99.70 % (99.54)<br>Validation: 99.30 %<br>"
        "**Test: 99.00 %** (98.80)<br>95 % interval: 98.79 to 99.18<br>Epochs: 15<br>Receptive field: 20 px",
    ]
    assert second[:2] == ["**model_2**", "half \\| of \\it"]
    for model, previous, row in ((models[0], None, first), (models[1], models[0], second)):
        assert row[3] == "<br>".join(analysis(model, previous, TARGETS))


def test_a_target_of_several_lines_stays_in_its_row() -> None:
    markdown = comparison_markdown([measured()], told_params(model_2=step("one line\nand another\n")))
    assert [len(row) for row in cells(markdown)] == [4]


@pytest.mark.parametrize(
    "story",
    [
        {},
        {"model_1": step()},
        {"model_2": Step(target="", reference_parameters=None, reference_train_accuracy=None, reference_test_accuracy=None)},
    ],
    ids=["no story", "another's story", "a story without figures"],
)
def test_a_model_of_which_the_brief_says_nothing_has_no_brackets(story: dict[str, Step]) -> None:
    ((_, target, result, _),) = cells(comparison_markdown([measured()], told_params(**story)))
    assert target == ""
    assert "(" not in result
    assert "None" not in result


def test_a_figure_of_zero_is_one() -> None:
    zero = Step(target="", reference_parameters="0", reference_train_accuracy=0.0, reference_test_accuracy=0.0)
    ((_, _, result, _),) = cells(comparison_markdown([measured()], told_params(model_2=zero)))
    assert re.findall(r"\((.*?)\)", result) == ["0", "0.00", "0.00"]


def test_the_comparison_as_numbers() -> None:
    models = [measured("model_1", [(8, 3, 100)]), measured("model_2")]
    table = comparison_table(models, told_params(model_1=step()))
    assert list(table) == [
        "model",
        *models[0].metrics,
        "test_accuracy_low",
        "test_accuracy_high",
        "receptive_field_px",
        "reference_train_accuracy",
        "reference_test_accuracy",
    ]
    first, second = table.to_dict("records")
    assert {key: first[key] for key in models[0].metrics} == models[0].metrics
    assert [first["test_accuracy_low"], first["test_accuracy_high"]] == [98.7853, 99.1771]
    assert [first["model"], first["receptive_field_px"], first["reference_train_accuracy"]] == ["model_1", 20, 99.54]
    assert [first["reference_test_accuracy"], second["model"]] == [98.8, "model_2"]
    assert second["test_accuracy_high"] == 100
    assert table[["reference_train_accuracy", "reference_test_accuracy"]].isna().all(axis=1).tolist() == [False, True]


def test_the_interval_is_around_the_share_of_images_not_misread() -> None:
    model = measured(mistakes=[(8, 3, 100)])
    low, high = model.interval
    assert model.test_images == 10_000
    assert low == pytest.approx(98.7853, abs=1e-4)
    assert high == pytest.approx(99.1771, abs=1e-4)


def test_the_curves_of_all_models_are_one_table() -> None:
    table = curves([measured("model_1"), measured("model_2")])
    assert table.to_dict("list") == {
        "epoch": [1, 2, 1, 2],
        "val_accuracy": [98.0, 99.3, 98.0, 99.3],
        "model": ["model_1", "model_1", "model_2", "model_2"],
    }
    assert list(table.index) == [0, 1, 2, 3]


def test_the_confusion_is_a_row_a_pair_of_digits() -> None:
    model = measured(mistakes=[(8, 3, 7), (3, 8, 2)])
    table = confusion_table(model)
    assert list(table) == ["actual", "predicted", "count"]
    assert table.to_numpy().tolist() == [[i, j, model.confusion[i][j]] for i in range(10) for j in range(10)]


HISTORY = "epoch,learning_rate,train_loss,train_accuracy,val_loss,val_accuracy\n1,0.1,0.5,90.0,0.2,95.0\n"
RECORD = {"metrics": {"parameters": 1}, "receptive_field_px": 20, "confusion": [[1]], "misread": []}


def test_what_the_stages_write_is_what_the_report_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    for part, seed in (("train", 0), ("val", 1), ("test", 2)):
        pixels, labels = map(torch.from_numpy, few_digits(20, seed))
        save_images(tmp_path / f"{part}.safetensors", Images(pixels, labels.long()))
    (tmp_path / "statistics.json").write_text('{"mean": 0.13, "std": 0.31}')
    save_weights(tmp_path / "weights.safetensors", build("model_1"))
    (tmp_path / "model_1.csv").write_text(HISTORY)
    evaluate.main(
        params=FILE,
        model="model_1",
        parts=tmp_path,
        weights=tmp_path / "weights.safetensors",
        metrics=tmp_path / "metrics.json",
        confusion=tmp_path / "confusion.csv",
        recalls=tmp_path / "recalls.csv",
        record=tmp_path / "model_1.json",
    )
    model = load_measured("model_1", tmp_path, tmp_path)
    assert model.name == "model_1"
    assert model.metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert confusion_table(model).equals(pd.read_csv(tmp_path / "confusion.csv"))
    assert model.test_images == 20
    assert len(model.misread) == 20 - sum(model.confusion[digit][digit] for digit in range(10)) > 0
    assert {"label", "predicted", "probability", "pixels"} <= set(model.misread[0])
    assert model.receptive_field_px is not None and model.receptive_field_px > 1
    assert model.history.to_csv(index=False) == HISTORY
    comparison_markdown([model], load(FILE))


@pytest.mark.parametrize(
    ("record", "history"),
    [
        (None, HISTORY),
        ("", HISTORY),
        (json.dumps(RECORD)[:-1], HISTORY),
        ("[]", HISTORY),
        ("null", HISTORY),
        (json.dumps({key: value for key, value in RECORD.items() if key != "misread"}), HISTORY),
        (json.dumps(RECORD | {"other": 1}), HISTORY),
        (json.dumps(RECORD | {"name": "model_9"}), HISTORY),
        (b"\xff\xfe", HISTORY),
        (json.dumps(RECORD), None),
        (json.dumps(RECORD), ""),
        (json.dumps(RECORD), HISTORY + "2,0.1,0.5,90.0,0.2,95.0,99\n"),
        (json.dumps(RECORD), b"epoch\n\xff\n"),
    ],
)
def test_a_missing_or_damaged_measurement_is_refused_in_a_line_that_names_the_files(
    tmp_path: Path, record: str | bytes | None, history: str | bytes | None
) -> None:
    for name, content in (("model_1.json", record), ("model_1.csv", history)):
        if content is not None:
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError) as error:
        load_measured("model_1", tmp_path, tmp_path)
    message = str(error.value)
    assert message.startswith(f"model_1: {tmp_path / 'model_1.json'} or {tmp_path / 'model_1.csv'} cannot be read (")
    assert "dvc repro" in message
    assert len(message.splitlines()) == 1
