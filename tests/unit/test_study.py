"""The study: which trials it has, their records, and what the tables say of records that are made up."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from mnist_cnn.common.errors import InputError
from mnist_cnn.settings.params import Params, Study, load, load_study
from mnist_cnn.study import Trial, load_record, load_records, plan, remove_other_records, save_record
from mnist_cnn.study_report import ablation, markdown, steps, summary, trial_table, trials_by

ROOT = Path(__file__).parents[2]
PARAMS = load(ROOT / "params.yaml")
SETTINGS: dict[str, Any] = {
    "seeds": {"model_4": 2, "model_5": 3, "model_6": 3},
    "equal": {"recipe": "model_6", "seeds": 2},
    "ablation": {
        "model": "model_6",
        "seeds": 2,
        "changes": {
            "no_average": {"recipe": {"ema_decay": 0.0}},
            "narrower": {"widths": [2, 2, 2, 2, 2, 2]},
        },
    },
}


def studied(settings: dict[str, Any], folder: Path, params: Params = PARAMS) -> Study:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return load_study(path, params)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return studied(SETTINGS, tmp_path)


def record(misread: list[int], val: float = 99.5, best: float | None = None) -> dict[str, Any]:
    """Of 10,000 test images; the best epoch is not the last."""
    accuracy = round(100 - len(misread) / 100, 4)
    by_epoch = [98.0, best or accuracy, accuracy]
    raw = [97.0, accuracy + 0.1, accuracy - 0.1]
    return {
        "fingerprint": "0",
        "parameters": 7000,
        "epochs": 3,
        "train_accuracy": 99.9,
        "val_accuracy": val,
        "val_accuracy_raw": val - 0.1,
        "test_accuracy": accuracy,
        "test_by_epoch": {"raw": raw, "delivered": by_epoch},
        "misread": misread,
    }


def records(trials: dict[str, Trial]) -> dict[str, dict[str, Any]]:
    """model_4 misreads 100 + seed images; model_5 60 + seed of them, or 50 by the equal recipe; model_6 others."""
    made = {}
    for name, trial in trials.items():
        kind, count = name.split("/")[0], trial.seed
        if trial.model == "model_6":
            made[name] = record(list(range(5000, 5055 + count)), best=99.48)
            if "narrower" in name:
                made[name] = {**record([], val=99.2 + count / 100), "parameters": 500}
        elif trial.model == "model_5":
            made[name] = record(list(range(50 if kind == "equal" else 60 + count)))
        else:
            made[name] = record(list(range(100 + count)))
    return made


def test_the_repositorys_own_study_is_valid_and_has_the_seeds_asked_for() -> None:
    study = load_study(ROOT / "study/params.yaml", PARAMS)
    trials = plan(PARAMS, study)
    least = dict.fromkeys(("model_1", "model_2", "model_3", "model_4"), 5)
    least |= dict.fromkeys(("model_5", "model_6", "model_7"), 10)
    assert set(least) <= set(study.seeds) <= set(PARAMS.models)
    for name in study.seeds:
        own = [trial for key, trial in trials.items() if key.startswith(f"own/{name}-")]
        assert [trial.seed for trial in own] == list(range(PARAMS.train.seed, PARAMS.train.seed + study.seeds[name]))
        assert len(own) >= least.get(name, 1)
        assert all(trial.recipe == PARAMS.models[name] for trial in own)
    assert study.ablation.seeds >= 3


def test_trials_are_every_seed_by_both_recipes_and_every_change(study: Study) -> None:
    trials = plan(PARAMS, study)
    seeds = range(PARAMS.train.seed, PARAMS.train.seed + 3)
    tested = [name for name, trial in trials.items() if trial.tested]
    others = [name for name in ("model_4", "model_5") if PARAMS.models[name] != PARAMS.models["model_6"]]
    models = [("own", name, count) for name, count in study.seeds.items()] + [("equal", name, 2) for name in others]
    expected = [f"{kind}/{name}-{seed}" for kind, name, count in models for seed in seeds[:count]]
    assert tested == expected
    untested = {name: trial for name, trial in trials.items() if not trial.tested}
    assert list(untested) == [f"ablation/{name}-{seed}" for name in ("no_average", "narrower") for seed in seeds[:2]]
    model_6 = PARAMS.models["model_6"]
    changed = untested[f"ablation/no_average-{seeds[0]}"]
    assert changed.recipe == model_6.model_copy(update={"ema_decay": 0.0}) and changed.widths is None
    narrower = untested[f"ablation/narrower-{seeds[0]}"]
    assert narrower.recipe == model_6 and narrower.widths == (2, 2, 2, 2, 2, 2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seeds": {"_none": 3}}, f"seeds: '_none' is not allowed; allowed: {', '.join(PARAMS.models)}"),
        ({"seeds": {}}, "seeds: {} is not allowed"),
        ({"seeds": {"model_1": 0}}, "seeds.model_1: 0 is not allowed"),
        ({"equal": {"recipe": "_none", "seeds": 2}}, "equal.recipe: '_none' is not allowed; allowed: "),
        ({"equal_recipe": "x"}, "equal_recipe: unknown setting (value 'x'); allowed here: seeds, equal, ablation"),
        ({"ablation": {**SETTINGS["ablation"], "model": "_none"}}, "ablation.model: '_none' is not allowed"),
        (
            {"ablation": {**SETTINGS["ablation"], "seeds": 4}},
            "ablation.seeds: 4 is not allowed: seeds has 3 of model_6",
        ),
        (
            {"ablation": {**SETTINGS["ablation"], "changes": {"a": {"recipe": {"max_lr": 0.0}}}}},
            "ablation.changes.a.recipe: max_lr: 0.0 is not allowed: input should be greater than 0",
        ),
        (
            {"ablation": {**SETTINGS["ablation"], "changes": {"a": {"recipe": {"rate": 0.1}}}}},
            "ablation.changes.a.recipe: rate: unknown setting (value 0.1); allowed here: epochs, batch_size",
        ),
        (
            {"ablation": {**SETTINGS["ablation"], "changes": {"a": {"width": 3}}}},
            "ablation.changes.a.width: unknown setting (value 3); allowed here: recipe, widths",
        ),
        ({"ablation": {**SETTINGS["ablation"], "changes": {"a/b": {}}}}, "ablation.changes.a/b"),
        ({"ablation": {**SETTINGS["ablation"], "changes": {}}}, "ablation.changes: {} is not allowed"),
        ({"ablation": {**SETTINGS["ablation"], "changes": {"a": {"widths": []}}}}, "ablation.changes.a.widths: []"),
        (
            {"ablation": {**SETTINGS["ablation"], "changes": {"recipe": {"width": 3}}}},
            "ablation.changes.recipe.width: unknown setting (value 3); allowed here: recipe, widths",
        ),
    ],
)
def test_what_is_wrong_in_the_settings_is_refused_by_its_path(
    change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        studied(SETTINGS | change, tmp_path)
    assert f"study.yaml: {told}" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_records_come_back_and_those_that_are_no_longer_planned_go(tmp_path: Path, study: Study) -> None:
    trials = plan(PARAMS, study)
    made = records(trials)
    for name in trials:
        save_record(tmp_path, name, made[name])
    save_record(tmp_path, "own/model_1-1", record([]))
    assert load_records(tmp_path, trials) == made
    remove_other_records(tmp_path, trials)
    assert load_record(tmp_path, "own/model_1-1") is None
    assert load_records(tmp_path, trials) == made


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"parameters": 1}'])
def test_a_record_that_is_missing_or_damaged_is_none_and_named(
    tmp_path: Path, study: Study, content: str | None
) -> None:
    trials = plan(PARAMS, study)
    for name in trials:
        save_record(tmp_path, name, record([]))
    path = tmp_path / "own/model_5-1.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert load_record(tmp_path, "own/model_5-1") is None
    with pytest.raises(InputError, match="own/model_5-1: no record; 'make study' makes it"):
        load_records(tmp_path, trials)


def test_the_table_of_trials_is_tidy(study: Study) -> None:
    trials = plan(PARAMS, study)
    table = trial_table(trials, records(trials))
    assert len(table) == sum(trial.tested for trial in trials.values())
    assert set(table["recipe"]) == {"own", "equal"}
    first = table[table["model"] == "model_6"].iloc[0]
    assert (first["seed"], first["epochs"], first["parameters"]) == (1, 3, 7000)
    assert first["test_accuracy"] == first["test_accuracy_averaged"] == 99.44
    assert first["test_accuracy_raw"] == pytest.approx(99.34)
    assert first["test_accuracy_best_epoch"] == 99.48
    assert first["test_accuracy_raw_best_epoch"] == pytest.approx(99.54)


def test_where_a_recipe_averages_nothing_that_column_is_empty(study: Study) -> None:
    trials = plan(PARAMS, study)
    recipe = PARAMS.models["model_6"].model_copy(update={"ema_decay": 0.0})
    trials = {name: trial._replace(recipe=recipe) for name, trial in trials.items()}
    assert trial_table(trials, records(trials))["test_accuracy_averaged"].isna().all()


def test_the_summary_is_over_seeds(study: Study) -> None:
    trials = plan(PARAMS, study)
    table = summary(trial_table(trials, records(trials)), target=99.38)
    rows = {(row["model"], row["recipe"]): row for row in table.to_dict("records")}
    row = rows["model_5", "own"]
    assert (row["seeds"], row["mean"], row["minimum"], row["maximum"]) == (3, 99.38, 99.37, 99.39)
    assert row["deviation"] == 0.01
    # Student's t of two degrees of freedom: 4.303 standard errors.
    assert (row["seeds_low"], row["seeds_high"]) == (pytest.approx(99.3552, abs=1e-4), pytest.approx(99.4048, abs=1e-4))
    assert row["images_low"] < 99.25 and 99.49 < row["images_high"] < 99.54
    assert row["meets_target"] == pytest.approx(2 / 3, abs=1e-4)
    # Seeds 1, 2 and 3 end at 99.44, 99.43 and 99.42, and have 99.48 as their best epoch.
    assert rows["model_6", "own"]["inflation"] == pytest.approx(0.05)


def test_steps_are_compared_image_by_image_with_the_same_seed(study: Study) -> None:
    trials = plan(PARAMS, study)
    table = steps(trials, records(trials), ["model_4", "model_5", "model_6"])
    rows = {(row["recipe"], row["from"]): row for row in table.to_dict("records")}
    real = rows["own", "model_4"]
    # All that model_5 misreads, model_4 does too; both misread one more with each further seed.
    assert (real["pairs"], real["gained"], real["lost"], real["significant"]) == (2, 40, 0, 2)
    assert (real["difference"], real["low"], real["high"]) == pytest.approx((0.4, 0.4, 0.4))
    assert real["p"] == pytest.approx(2**-39)
    luck = rows["own", "model_5"]
    assert (luck["pairs"], luck["gained"], luck["lost"], luck["significant"]) == (3, 62, 57, 0)
    assert luck["p"] > 0.5
    assert rows["equal", "model_4"]["pairs"] == 2
    # The same trials are not told of twice.
    assert ("equal", "model_5") not in rows or PARAMS.models["model_5"] != PARAMS.models["model_6"]
    # model_6's own trials are those by the equal recipe, too.
    assert {trial.model for trial in trials_by("equal", trials)["model_6"].values()} == {"model_6"}


def test_the_ablation_tells_what_each_change_adds(study: Study) -> None:
    trials = plan(PARAMS, study)
    table = ablation(trials, records(trials), study).set_index("change")
    assert list(table.index) == ["none", "no_average", "narrower"]
    row = table.loc["narrower"].to_dict()
    assert (row["parameters"], row["seeds"], row["val_mean"]) == (500, 2, 99.215)
    assert row["difference"] == pytest.approx(-0.285)
    assert row["difference_low"] == pytest.approx(-0.285 - 12.7062 * 0.005, abs=1e-3)
    assert table.loc["none", "difference"] == 0


def test_the_markdown_says_all_of_it(study: Study) -> None:
    trials = plan(PARAMS, study)
    made = records(trials)
    tested = trial_table(trials, made)
    summaries = summary(tested, 99.38)
    compared = steps(trials, made, list(study.seeds))
    text = markdown(summaries, compared, ablation(trials, made, study), tested, 99.38, study)
    assert "| model_5 | 7,000 | **99.38** ± 0.01 | 99.37 to 99.39 | 99.36 to 99.40 |" in text
    assert "| 2 of 3 |" in text
    assert "Seeds at 99.38 %" in text
    assert (
        "| model_4 → model_5 | their own | +0.40<br>+0.40 to +0.40 | **real** | 40 and 0 | < 0.001 | 2 of 2 |" in text
    )
    assert "| model_5 → model_6 | their own | +0.05<br>+0.05 to +0.05 | **real** | 62 and 57 |" in text
    assert "| narrower | 500 |" in text
    assert f"on the {(tested['recipe'] == 'own').sum()} runs by the models' own recipes" in text
    assert "The luckiest epoch of model_6's luckiest seed has 99.54 %" in text
    columns = {line.count("|") for block in text.split("\n\n")[:-1] for line in block.splitlines() if "|" in line[:1]}
    assert len(columns) == 3


@pytest.mark.parametrize(
    ("points", "text"), [(0.004, "0.00"), (-0.004, "0.00"), (0.0, "0.00"), (0.006, "+0.01"), (-0.5, "-0.50")]
)
def test_a_difference_that_rounds_to_nothing_has_no_sign(study: Study, points: float, text: str) -> None:
    trials = plan(PARAMS, study)
    made = records(trials)
    ablated = ablation(trials, made, study)
    ablated[["difference", "difference_low", "difference_high"]] = points
    tested = trial_table(trials, made)
    told = markdown(summary(tested, 99.4), steps(trials, made, list(study.seeds)), ablated, tested, 99.4, study)
    assert f"| {text}<br>{text} to {text} |" in told


def test_a_loss_is_called_one(study: Study) -> None:
    trials = plan(PARAMS, study)
    made = records(trials)
    backwards = steps(trials, made, ["model_5", "model_4"])
    tested = trial_table(trials, made)
    text = markdown(summary(tested, 99), backwards, pd.DataFrame(), tested, 99, study)
    assert "| -0.40<br>-0.40 to -0.40 | **real**, and a loss | 0 and 40 | < 0.001 | 2 of 2 |" in text


def test_a_gain_that_comes_and_goes_with_the_seed_is_luck_however_sure_each_pair_of_networks(study: Study) -> None:
    trials = plan(PARAMS, study)
    made = records(trials)
    for name, trial in trials.items():
        if name.startswith("own/model_6"):
            better = trial.seed % 2
            made[name] = record(list(range(20 if better else 110)))
    rows = steps(trials, made, ["model_5", "model_6"]).to_dict("records")
    assert rows[0]["significant"] == 3 and rows[0]["p"] < 0.001 and rows[0]["gained"] != rows[0]["lost"]
    assert rows[0]["low"] < 0 < rows[0]["high"]
    tested = trial_table(trials, made)
    text = markdown(summary(tested, 99), pd.DataFrame(rows), pd.DataFrame(), tested, 99, study)
    assert "| can be luck |" in text


def test_a_single_seed_has_no_interval(tmp_path: Path) -> None:
    once = {**SETTINGS, "seeds": {"model_4": 1, "model_6": 1}, "ablation": {**SETTINGS["ablation"], "seeds": 1}}
    study = studied(once, tmp_path)
    trials = plan(PARAMS, study)
    made = records(trials)
    tested = trial_table(trials, made)
    compared = steps(trials, made, ["model_4", "model_6"])
    text = markdown(summary(tested, 99), compared, ablation(trials, made, study), tested, 99, study)
    assert "nan" not in text
    assert "can be luck" in text
