"""What the study's tables say of records that are made up."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest

from mnist_cnn.report.study_tables import ablation, differences, markdown, summary, trial_table, trials_by
from mnist_cnn.settings.params import Params, load
from mnist_cnn.study.plan import Trial, plan
from mnist_cnn.study.records import Record
from mnist_cnn.study.settings import Study
from tests.helpers import MNIST, RECIPE, ROOT

MODELS = ("model_4", "model_5", "model_6")


def study_with(**seeds: int) -> Study:
    changes: dict[str, Any] = {
        "no_ema": {"recipe": {"ema_decay": 0.0}},
        "narrower": {"widths": [2, 2, 2, 2, 2, 2]},
    }
    least = min(2, seeds["model_6"])
    return Study.model_validate(
        {
            "seeds": seeds,
            "shared": {"recipe": "model_6", "seeds": 2},
            "ablation": {"model": "model_6", "seeds": least, "changes": changes},
        }
    )


def params() -> Params:
    """model_6 has another recipe than the others, with an EMA."""
    loaded = load(ROOT / "params.yaml")
    recipes = dict.fromkeys(MODELS, RECIPE) | {"model_6": RECIPE.model_copy(update={"ema_decay": 0.9})}
    train = loaded.train.model_copy(update={"seed": 1})
    return loaded.model_copy(update={"models": recipes, "train": train})


STUDY = study_with(model_4=2, model_5=3, model_6=3)
TRIALS = plan(params(), STUDY)


def record(misclassified: int, first: int = 0, *, val: float = 99.5, best: float | None = None) -> Record:
    """Of 10,000 test images, of which those from ``first`` on are misclassified; the best epoch is not the last."""
    accuracy = round(100 - misclassified / 100, 4)
    return {
        "parameters": 7000,
        "epochs": 3,
        "train_accuracy": 99.9,
        "val_accuracy": val,
        "val_accuracy_raw": val - 0.1,
        "test_accuracy": accuracy,
        "test_images": 10_000,
        "test_by_epoch": {"raw": [97.0, accuracy + 0.1, accuracy - 0.1], "final": [98.0, best or accuracy, accuracy]},
        "misclassified": list(range(first, first + misclassified)),
    }


def records_of(trials: Mapping[str, Trial]) -> dict[str, Record]:
    """Numbers of misclassified images: model_4 100 and its seed; model_5 60 and its seed, or 50 by the shared recipe.

    model_6 misclassifies others, 55 and its seed.
    """
    records = {}
    for name, trial in trials.items():
        if name.startswith("ablation/narrower"):
            records[name] = record(0, val=99.2 + trial.seed / 100) | {"parameters": 500}
        elif trial.model == "model_6":
            records[name] = record(55 + trial.seed, 5000, best=99.48)
        elif trial.model == "model_5":
            records[name] = record(50 if name.startswith("shared") else 60 + trial.seed)
        else:
            records[name] = record(100 + trial.seed)
    return records


RECORDS = records_of(TRIALS)


def text_of(
    *,
    trials: Mapping[str, Trial] = TRIALS,
    records: Mapping[str, Record] = RECORDS,
    study: Study = STUDY,
    order: tuple[str, ...] = MODELS,
    ablated: pd.DataFrame | None = None,
) -> str:
    """The Markdown, with a target of 99.38 %."""
    tested = trial_table(trials, records)
    changes = ablation(trials, records, study) if ablated is None else ablated
    return markdown(summary(tested, 99.38), differences(trials, records, order), changes, tested, 99.38, study, MNIST)


def test_the_table_of_trials_is_tidy() -> None:
    table = trial_table(TRIALS, RECORDS)
    assert len(table) == sum(trial.tested for trial in TRIALS.values())
    assert set(table["recipe"]) == {"own", "shared"}
    first = table[table["model"] == "model_6"].iloc[0]
    assert (first["seed"], first["epochs"], first["parameters"], first["test_images"]) == (1, 3, 7000, 10_000)
    assert first["test_accuracy"] == first["test_accuracy_ema"] == 99.44
    assert first["test_accuracy_raw"] == pytest.approx(99.34)
    assert first["test_accuracy_best_epoch"] == 99.48
    assert first["test_accuracy_raw_best_epoch"] == pytest.approx(99.54)
    # Where a recipe has no EMA, that column is empty.
    assert table[(table["model"] == "model_5") & (table["recipe"] == "own")]["test_accuracy_ema"].isna().all()


def test_the_summary_is_over_seeds() -> None:
    table = summary(trial_table(TRIALS, RECORDS), target=99.38)
    rows = {(row["model"], row["recipe"]): row for row in table.to_dict("records")}
    row = rows["model_5", "own"]
    assert (row["seeds"], row["mean"], row["minimum"], row["maximum"]) == (3, 99.38, 99.37, 99.39)
    assert row["std"] == 0.01
    # Student's t of two degrees of freedom: 4.303 standard errors.
    assert (row["seeds_low"], row["seeds_high"]) == (pytest.approx(99.3552, abs=1e-4), pytest.approx(99.4048, abs=1e-4))
    assert 99.2 < row["images_low"] < 99.25 and 99.49 < row["images_high"] < 99.54
    assert row["meets_target"] == pytest.approx(2 / 3, abs=1e-4)
    # Seeds 1, 2 and 3 end at 99.44, 99.43 and 99.42, and have 99.48 as their best epoch.
    assert rows["model_6", "own"]["inflation"] == pytest.approx(0.05)


def test_an_interval_over_images_follows_their_number() -> None:
    few = {name: record | {"test_images": 100} for name, record in RECORDS.items()}
    assert summary(trial_table(TRIALS, few), target=99.38)["images_low"].max() < 97


def test_models_are_compared_image_by_image_with_the_same_seed() -> None:
    table = differences(TRIALS, RECORDS, MODELS)
    rows = {(row["recipe"], row["from"]): row for row in table.to_dict("records")}
    gain = rows["own", "model_4"]
    # All that model_5 misclassifies, model_4 does too; both misclassify one more with each further seed.
    assert (gain["pairs"], gain["gained"], gain["lost"], gain["significant"]) == (2, 40, 0, 2)
    assert (gain["difference"], gain["low"], gain["high"]) == pytest.approx((0.4, 0.4, 0.4))
    assert gain["p"] == pytest.approx(2**-39)
    alike = rows["own", "model_5"]
    assert (alike["pairs"], alike["gained"], alike["lost"], alike["significant"]) == (3, 62, 57, 0)
    assert alike["p"] > 0.5
    # By the shared recipe model_5 misclassifies 50, and model_6's own trials are those by it.
    assert (rows["shared", "model_4"]["pairs"], rows["shared", "model_4"]["gained"]) == (2, 51.5)
    assert (rows["shared", "model_5"]["pairs"], rows["shared", "model_5"]["gained"]) == (2, 50)
    assert list(trials_by("shared", TRIALS)["model_6"]) == [f"own/model_6-{seed}" for seed in (1, 2, 3)]


def test_trials_that_are_the_same_by_both_recipes_are_compared_once() -> None:
    trials = {name: trial for name, trial in TRIALS.items() if not name.startswith("shared/model_5")}
    table = differences(trials, RECORDS, MODELS)
    assert list(zip(table["recipe"], table["from"], strict=True)) == [
        *(("own", "model_4"), ("own", "model_5"), ("shared", "model_4")),
    ]


def test_the_ablation_has_what_each_change_adds() -> None:
    table = ablation(TRIALS, RECORDS, STUDY).set_index("change")
    assert list(table.index) == ["none", "no_ema", "narrower"]
    row = table.loc["narrower"].to_dict()
    assert (row["parameters"], row["seeds"], row["val_mean"]) == (500, 2, 99.215)
    assert row["difference"] == pytest.approx(-0.285)
    assert row["difference_low"] == pytest.approx(-0.285 - 12.7062 * 0.005, abs=1e-3)
    assert table.loc["none", "difference"] == 0


def test_the_markdown_has_all_of_it() -> None:
    text = text_of()
    assert "| model_5 | 7,000 | **99.38** ± 0.01 | 99.37 to 99.39 | 99.36 to 99.40 |" in text
    assert "| 2 of 3 |" in text
    assert "Seeds at 99.38 %" in text
    assert (
        "| model_4 → model_5 | their own | +0.40<br>+0.40 to +0.40 | **gain** | 40 and 0 | < 0.001 | 2 of 2 |" in text
    )
    assert "| model_5 → model_6 | their own | +0.05<br>+0.05 to +0.05 | **gain** | 62 and 57 |" in text
    assert "| model_5 → model_6 | model_6's |" in text
    assert "| narrower | 500 |" in text
    assert "of the 8 runs by the models' own recipes" in text
    assert "The best epoch of model_6's best seed has 99.54 %" in text
    columns = {line.count("|") for block in text.split("\n\n")[:-1] for line in block.splitlines() if "|" in line[:1]}
    assert len(columns) == 3


@pytest.mark.parametrize(("points", "text"), [(0.004, "0.00"), (-0.004, "0.00"), (0.006, "+0.01"), (-0.5, "-0.50")])
def test_a_difference_that_rounds_to_nothing_has_no_sign(points: float, text: str) -> None:
    ablated = ablation(TRIALS, RECORDS, STUDY)
    ablated[["difference", "difference_low", "difference_high"]] = points
    assert f"| {text}<br>{text} to {text} |" in text_of(ablated=ablated)


def test_a_loss_is_called_one() -> None:
    text = text_of(order=("model_5", "model_4"))
    assert "| -0.40<br>-0.40 to -0.40 | **loss** | 0 and 40 | < 0.001 | 2 of 2 |" in text


def test_a_gain_that_comes_and_goes_with_the_seed_is_not_significant_however_sure_each_pair_of_networks() -> None:
    records = RECORDS | {f"own/model_6-{seed}": record(count) for seed, count in ((1, 20), (2, 110), (3, 20))}
    order = ("model_5", "model_6")
    row = differences(TRIALS, records, order).to_dict("records")[0]
    assert row["significant"] == 3 and row["p"] < 0.001 and row["gained"] != row["lost"]
    assert row["low"] < 0 < row["high"]
    [line] = [
        line
        for line in text_of(records=records, order=order).splitlines()
        if "| model_5 → model_6 | their own |" in line
    ]
    assert "| no |" in line


def test_a_single_seed_has_no_interval() -> None:
    study = study_with(model_4=1, model_6=1)
    trials = plan(params(), study)
    text = text_of(trials=trials, records=records_of(trials), study=study, order=("model_4", "model_6"))
    assert "nan" not in text
    assert "| model_4 → model_6 | their own | +0.45 | no |" in text
