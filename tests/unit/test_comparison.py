"""What the comparison says of made-up results: each finding in both directions, the tables, the numbers."""

import re

import pytest
from markdown_it import MarkdownIt

from mnist_cnn.evaluation.looks import Look
from mnist_cnn.evaluation.metrics import TARGETS as TARGET_KEYS
from mnist_cnn.report.comparison import (
    analysis,
    comparison_markdown,
    comparison_table,
    curves,
    looks_markdown,
    results_markdown,
)
from mnist_cnn.report.results import ModelResult
from mnist_cnn.settings.params import Targets
from mnist_cnn.settings.story import StoryEntry
from tests.helpers import MNIST
from tests.results import Mistake, model_result

TARGETS = Targets(test_accuracy=99.4, max_epochs=15, parameters_below=8000)


def entry(target: str = "", parameters: str | None = None, accuracy: float | None = None) -> StoryEntry:
    return StoryEntry(
        target=target,
        reference_parameters=parameters,
        reference_train_accuracy=accuracy,
        reference_test_accuracy=accuracy,
    )


def cells(markdown: str) -> list[list[str]]:
    """The rendered cells of a table, a row a list, its header first."""
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    assert html.count("<table>") == 1
    return [re.findall("<t[hd].*?>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", html, re.DOTALL)]


def test_a_model_is_analysed_in_sentences_and_beside_the_one_before() -> None:
    first = model_result("model_1", [(8, 3, 100)])
    assert len(analysis(first, None, TARGETS, MNIST)) == 5
    assert "model_1" not in "".join(analysis(first, None, TARGETS, MNIST))
    beside = analysis(model_result("model_2"), first, TARGETS, MNIST)
    assert len(beside) == 6
    assert ["model_1" in sentence for sentence in beside] == [False, True, False, True, False, False]


@pytest.mark.parametrize(
    ("parameters", "finding"),
    [(7_999, r"7,999 .*under 8,000.* 1 "), (8_000, r"8,000 .*1\.0 times.* 8,000"), (28_954, r"28,954 .*3\.6 times")],
)
def test_parameters_are_held_against_their_limit(parameters: int, finding: str) -> None:
    assert re.match(finding, analysis(model_result(parameters=parameters), None, TARGETS, MNIST)[0])


@pytest.mark.parametrize(
    ("gap", "finding"),
    [
        (0.21, r"Overfits.* 0\.21 points above"),
        (0.20, r".*not overfit measurably.* 0\.20 points above"),
        (0.0, r".*not overfit measurably.* 0\.00 points above"),
        (-0.35, r".*not overfit:.* 0\.35 points below"),
    ],
)
def test_a_model_overfits_when_training_is_well_above_test(gap: float, finding: str) -> None:
    assert re.match(finding, analysis(model_result(train_accuracy=99.5 + gap), None, TARGETS, MNIST)[1])
    unseen = model_result(test_errors=None, val_accuracy=98, train_accuracy=98 + gap)
    assert re.match(f"{finding} validation", analysis(unseen, None, TARGETS, MNIST)[1])


@pytest.mark.parametrize(
    ("gap", "before", "finding"),
    [
        (0.5, 0.2, r"above.* 0\.30 points wider"),
        (0.1, 0.7, r"above.* 0\.60 points narrower"),
        (-0.1, 0.1, r"below.* 0\.20 points narrower"),
        (0.104, 0.1, r"above.* as for model_1$"),
        (0.1, 0.104, r"above.* as for model_1$"),
    ],
)
def test_a_gap_is_compared_with_that_of_the_model_before(gap: float, before: float, finding: str) -> None:
    previous = model_result("model_1", train_accuracy=99.5 + before)
    assert re.search(finding, analysis(model_result(train_accuracy=99.5 + gap), previous, TARGETS, MNIST)[1])


@pytest.mark.parametrize(
    ("wrong", "finding"),
    [
        (40, r"Reaches 99\.4 %.* outside .*\(99\.46 to 99\.71\)"),
        (60, r"Reaches 99\.4 %.* within .*\(99\.23 to 99\.53\)"),
        (61, r"0\.01 points short of 99\.4 %.* within .*\(99\.22 to 99\.52\)"),
        (100, r"0\.40 points short of 99\.4 %.* outside .*\(98\.79 to 99\.18\)"),
    ],
)
def test_accuracy_is_held_against_its_target_and_the_interval(wrong: int, finding: str) -> None:
    assert re.match(finding, analysis(model_result(test_errors=wrong), None, TARGETS, MNIST)[2])


@pytest.mark.parametrize(("wrong", "accuracy"), [(99, r"0\.01 points more"), (101, r"0\.01 .* less"), (100, "As much")])
@pytest.mark.parametrize(
    ("parameters", "size"),
    [(10_049, "as many parameters"), (15_000, "50 ?% more parameters"), (2_500, "75 ?% fewer parameters")],
)
def test_accuracy_and_size_are_compared_with_those_of_the_model_before(
    wrong: int, accuracy: str, parameters: int, size: str
) -> None:
    previous = model_result("model_1", test_errors=100, parameters=10_000)
    model = model_result(test_errors=wrong, parameters=parameters)
    assert re.match(f"{accuracy} .*model_1.* {size}$", analysis(model, previous, TARGETS, MNIST)[3])


def test_validation_is_not_compared_with_the_test_set() -> None:
    unseen, seen = model_result("model_1", test_errors=None), model_result("model_2")
    assert not any("model_1" in sentence for sentence in analysis(seen, unseen, TARGETS, MNIST))
    both = analysis(model_result("model_2", test_errors=None), unseen, TARGETS, MNIST)
    assert ["model_1" in sentence for sentence in both] == [False, True, True, False, False]
    assert not any("test" in sentence for sentence in both[:-1])


def test_a_model_that_was_not_looked_at_shows_no_test_figure() -> None:
    unseen = model_result(test_errors=None)
    for markdown in (comparison_markdown([unseen], TARGETS, {}, MNIST), results_markdown([unseen], TARGETS, {}, MNIST)):
        assert "meets all" not in markdown.lower() and "not tested" in markdown
    assert cells(results_markdown([unseen], TARGETS, {}, MNIST))[1][4:6] == ["–", "–"]
    [row] = comparison_table([unseen], TARGETS, {}).to_dict("records")
    assert [row[key] for key in ("test_accuracy", "test_loss", "test_accuracy_low", "meets_accuracy_target")] == [
        None
    ] * 4
    assert row["meets_epochs_target"] is row["meets_parameters_target"] is True


@pytest.mark.parametrize(
    ("mistakes", "finding"),
    [
        ([(8, 3, 20), (8, 2, 10), (4, 9, 25)], r"Weakest .* 8 \(97\.0 % .*\).* 3$"),
        ([(0, 9, 1)], r"Weakest .* 0 \(99\.9 % .*\).* 9$"),
        ([(9, 0, 600)], r"Weakest .* 9 \(40\.0 % .*\).* 0$"),
        ([], ".*every validation image correctly"),
    ],
)
def test_the_weakest_class_and_what_it_is_taken_for_are_named(mistakes: list[Mistake], finding: str) -> None:
    assert re.match(finding, analysis(model_result(mistakes=mistakes), None, TARGETS, MNIST)[3])


def test_the_weakest_class_has_the_lowest_recall_not_the_most_mistakes() -> None:
    model = model_result(mistakes=[(4, 9, 20), (1, 7, 10)])
    model.confusion[1][1] = 90
    model.confusion[2][2] = 0  # a class without images has no recall
    assert "1 (90.0 %" in analysis(model, None, TARGETS, MNIST)[3]


@pytest.mark.parametrize(
    ("accuracy", "epochs", "parameters", "missed"),
    [
        (True, True, True, None),
        (False, True, True, "99.4 % accuracy"),
        (True, False, True, "at most 15 epochs"),
        (True, False, False, "at most 15 epochs; fewer than 8,000 parameters"),
        (False, False, False, "99.4 % accuracy; at most 15 epochs; fewer than 8,000 parameters"),
    ],
)
def test_the_verdict_names_the_missed_targets(
    accuracy: bool, epochs: bool, parameters: bool, missed: str | None
) -> None:
    model = model_result(
        test_errors=60 if accuracy else 61, epochs=15 if epochs else 16, parameters=7_999 if parameters else 8_000
    )
    assert analysis(model, None, TARGETS, MNIST)[-1] == (
        f"Misses: {missed}" if missed else "**Meets all three targets**"
    )
    assert cells(results_markdown([model], TARGETS, {}, MNIST))[1][-1] == (
        f"misses: {missed}" if missed else "meets all"
    )


def test_the_comparison_has_a_row_a_model_with_the_reference_figures_in_brackets() -> None:
    first, second = model_result("model_1", test_errors=100, parameters=14_478), model_result("model_2")
    story = dict(model_1=entry("a skeleton", "14.5k", 98.8), model_2=entry("half | of\nit\n"))
    header, *rows = cells(comparison_markdown([first, second], TARGETS, story, MNIST))
    assert len(header) == 4
    assert [row[:2] for row in rows] == [
        ["<strong>model_1</strong>", "a skeleton"],
        ["<strong>model_2</strong>", "half | of it"],
    ]
    assert rows[0][2].split("<br>") == [
        "Parameters: 14,478 (14.5k)",
        "Training: 99.70 % (98.80)",
        "Validation: 99.30 %",
        "<strong>Test: 99.00 %</strong> (98.80)",
        "95 % interval: 98.79 to 99.18",
        "Epochs: 15",
        "ONNX file: 35 kB",
        "Receptive field: 20 px",
    ]
    for model, previous, row in ((first, None, rows[0]), (second, first, rows[1])):
        said = analysis(model, previous, TARGETS, MNIST)
        said[-1] = re.sub(r"\*\*(.*)\*\*", r"<strong>\1</strong>", said[-1])
        assert row[3].split("<br>") == said


@pytest.mark.parametrize("story", [{}, {"model_1": entry("x", "29k", 99.0)}, {"model_2": entry()}])
def test_a_model_without_reference_figures_has_no_brackets(story: dict[str, StoryEntry]) -> None:
    model = model_result()._replace(receptive_field_px=None)
    _, (_, target, result, _) = cells(comparison_markdown([model], TARGETS, story, MNIST))
    assert target == ""
    assert not re.search(r"\(|None", result)
    assert "Receptive field: –" in result
    header, row = cells(results_markdown([model], TARGETS, story, MNIST))
    assert len(row) == len(header) and ("Reference, %" in header) == bool(story) and row[6:-1] == ["–"] * bool(story)


def test_a_reference_figure_of_zero_is_one() -> None:
    story = dict(model_2=entry("", "0", 0.0))
    _, (_, _, result, _) = cells(comparison_markdown([model_result()], TARGETS, story, MNIST))
    assert re.findall(r"\((.*?)\)", result) == ["0", "0.00", "0.00"]
    assert cells(results_markdown([model_result()], TARGETS, story, MNIST))[1][6] == "0.00"


def test_the_short_table_has_the_figures_of_each_model() -> None:
    models = [model_result("model_1", test_errors=100, parameters=14_478), model_result("model_2", test_errors=40)]
    header, *rows = cells(results_markdown(models, TARGETS, dict(model_1=entry("x", "14.5k", 98.8)), MNIST))
    assert len(header) == len(rows[0])
    assert [row[:7] for row in rows] == [
        ["model_1", "14,478", "15", "99.30", "<strong>99.00</strong>", "98.79 to 99.18", "98.80"],
        ["model_2", "7,000", "15", "99.30", "<strong>99.60</strong>", "99.46 to 99.71", "–"],
    ]


def test_the_comparison_as_numbers() -> None:
    models = [model_result("model_1", test_errors=100), model_result("model_2", test_errors=0)]
    table = comparison_table(models, TARGETS, dict(model_1=entry("", "14.5k", 98.8)))
    metrics = models[0].metrics.as_dict()
    added = ["test_accuracy", "test_loss", "test_accuracy_low", "test_accuracy_high"]
    references = ["reference_train_accuracy", "reference_test_accuracy"]
    of_file = ["onnx_bytes", "onnx_largest_difference"]
    assert list(table) == ["model", *metrics, *added, *TARGET_KEYS, *of_file, "receptive_field_px", *references]
    first, second = table.to_dict("records")
    assert {key: first[key] for key in metrics} == metrics
    assert [first[key] for key in added] == [99.0, 0.02, 98.7853, 99.1771]
    assert [first[key] for key in TARGET_KEYS] == [False, True, True]
    assert [first[key] for key in references] == [98.8, 98.8]
    assert [first["model"], second["model"], second["test_accuracy_high"]] == ["model_1", "model_2", 100]
    assert table[references].isna().all(axis=1).tolist() == [False, True]


def test_looks_are_numbered_from_the_oldest_on() -> None:
    looks = [
        Look(date="2026-11-23", commit="a17331a", why="five models", seen="a | b", followed="c"),
        Look(date="2026-11-24", commit="", data="custom", why="more", models={"model_1": "0" * 16}),
    ]
    assert cells(looks_markdown(looks))[1:] == [
        ["1", "2026-11-23", "a17331a", "MNIST", "five models", "a | b", "c"],
        ["2", "2026-11-24", "", "own", "more", "–", "–"],
    ]


def test_the_curves_of_all_models_are_one_table() -> None:
    models: list[ModelResult] = [model_result("model_1"), model_result("model_2")]
    table = curves(models)
    assert table.to_dict("list") == {
        "epoch": [1, 2, 1, 2],
        "val_accuracy": [98.0, 99.3, 98.0, 99.3],
        "model": ["model_1", "model_1", "model_2", "model_2"],
    }
    assert list(table.index) == [0, 1, 2, 3]
