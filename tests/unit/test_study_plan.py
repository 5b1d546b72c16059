"""The study's settings, and which trials they ask for."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mnist_cnn.common.errors import InputError
from mnist_cnn.settings.params import load
from mnist_cnn.study.plan import Trial, plan
from mnist_cnn.study.settings import load_study
from tests.helpers import RECIPE, ROOT

PARAMS = load(ROOT / "params.yaml")
ABLATION: dict[str, Any] = {
    "model": "model_6",
    "seeds": 2,
    "changes": {"no_ema": {"recipe": {"ema_decay": 0.0}}, "narrower": {"widths": [2, 2, 2, 2, 2, 2]}},
}
SETTINGS: dict[str, Any] = {
    "seeds": {"model_4": 1, "model_5": 3, "model_6": 3, "model_7": 2},
    "shared": {"recipe": "model_6", "seeds": 2},
    "ablation": ABLATION,
}


def written(settings: dict[str, Any], folder: Path) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def test_the_repositorys_own_study_is_valid_and_has_the_seeds_asked_for() -> None:
    study = load_study(ROOT / "study/params.yaml", PARAMS)
    trials = plan(PARAMS, study)
    least = dict.fromkeys(("model_1", "model_2", "model_3", "model_4"), 5)
    least |= dict.fromkeys(("model_5", "model_6", "model_7"), 10)
    assert set(least) <= set(study.seeds) <= set(PARAMS.models)
    for name, count in study.seeds.items():
        own = [trial for key, trial in trials.items() if key.startswith(f"own/{name}-")]
        assert [trial.seed for trial in own] == list(range(PARAMS.train.seed, PARAMS.train.seed + count))
        assert count >= least.get(name, 1)
        assert all(trial.recipe == PARAMS.models[name] for trial in own)
    assert study.ablation.seeds >= 3


def test_trials_are_every_seed_by_both_recipes_and_every_change(tmp_path: Path) -> None:
    shared = RECIPE.model_copy(update={"ema_decay": 0.9})
    # model_7's own recipe is the shared one, too.
    recipes = {"model_4": RECIPE, "model_5": RECIPE, "model_6": shared, "model_7": shared}
    train = PARAMS.train.model_copy(update={"seed": 4})
    params = PARAMS.model_copy(update={"models": recipes, "train": train})
    narrower = (2, 2, 2, 2, 2, 2)
    trials = plan(params, load_study(written(SETTINGS, tmp_path), params))
    assert list(trials.items()) == [
        ("own/model_4-4", Trial("model_4", RECIPE, 4, None, tested=True)),
        ("own/model_5-4", Trial("model_5", RECIPE, 4, None, tested=True)),
        ("own/model_5-5", Trial("model_5", RECIPE, 5, None, tested=True)),
        ("own/model_5-6", Trial("model_5", RECIPE, 6, None, tested=True)),
        ("own/model_6-4", Trial("model_6", shared, 4, None, tested=True)),
        ("own/model_6-5", Trial("model_6", shared, 5, None, tested=True)),
        ("own/model_6-6", Trial("model_6", shared, 6, None, tested=True)),
        ("own/model_7-4", Trial("model_7", shared, 4, None, tested=True)),
        ("own/model_7-5", Trial("model_7", shared, 5, None, tested=True)),
        ("shared/model_4-4", Trial("model_4", shared, 4, None, tested=True)),
        ("shared/model_5-4", Trial("model_5", shared, 4, None, tested=True)),
        ("shared/model_5-5", Trial("model_5", shared, 5, None, tested=True)),
        ("ablation/no_ema-4", Trial("model_6", RECIPE, 4, None, tested=False)),
        ("ablation/no_ema-5", Trial("model_6", RECIPE, 5, None, tested=False)),
        ("ablation/narrower-4", Trial("model_6", shared, 4, narrower, tested=False)),
        ("ablation/narrower-5", Trial("model_6", shared, 5, narrower, tested=False)),
    ]


def ablation(**changes: object) -> dict[str, Any]:
    return {"ablation": ABLATION | changes}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seeds": {"_none": 3}}, f"seeds: '_none' is not allowed; allowed: {', '.join(PARAMS.models)}"),
        ({"seeds": {}}, "seeds: {} is not allowed"),
        ({"seeds": {"model_1": 0}}, "seeds.model_1: 0 is not allowed"),
        ({"shared": {"recipe": "_none", "seeds": 2}}, "shared.recipe: '_none' is not allowed; allowed: "),
        ({"shared_recipe": "x"}, "shared_recipe: unknown setting (value 'x'); allowed here: seeds, shared, ablation"),
        ({"equal": {"recipe": "model_6", "seeds": 2}}, "equal: this setting is now called shared"),
        (ablation(model="_none"), "ablation.model: '_none' is not allowed"),
        (ablation(seeds=4), "ablation.seeds: 4 is not allowed: seeds has 3 of model_6"),
        (ablation(changes={}), "ablation.changes: {} is not allowed"),
        (ablation(changes={"a/b": {}}), "ablation.changes.a/b"),
        (ablation(changes={"a": {"widths": []}}), "ablation.changes.a.widths: []"),
        (ablation(changes={"a": {"recipe": {"max_lr": 0.0}}}), "ablation.changes.a.recipe: max_lr: 0.0"),
        (ablation(changes={"a": {"recipe": {"rate": 0.1}}}), "ablation.changes.a.recipe: rate: unknown setting"),
        # A change that is called like a setting.
        (
            ablation(changes={"recipe": {"width": 3}}),
            "ablation.changes.recipe.width: unknown setting (value 3); allowed here: recipe, widths",
        ),
    ],
)
def test_what_is_wrong_in_the_settings_is_refused_by_its_path(
    change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        load_study(written(SETTINGS | change, tmp_path), PARAMS)
    assert f"study.yaml: {told}" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
