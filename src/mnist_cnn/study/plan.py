"""Which trials the study has."""

from typing import NamedTuple

from mnist_cnn.settings.params import Params, Recipe, changed
from mnist_cnn.study.settings import Study

OWN, SHARED, ABLATION = "own", "shared", "ablation"


class Trial(NamedTuple):
    """What is to be trained; ``widths`` are the network's where they are not the model's own.

    Only what is ``tested`` sees the test set: recipes that compete for a decision do not.
    """

    model: str
    recipe: Recipe
    seed: int
    widths: tuple[int, ...] | None
    tested: bool


def plan(params: Params, study: Study) -> dict[str, Trial]:
    """The study's trials by name: ``own/model_6-1`` is model_6 by its own recipe with seed 1.

    ``own/…`` and ``shared/…``, by the recipe that ``study.shared`` names, are tested; ``ablation/<change>-1`` is not.
    """
    first = params.train.seed
    shared = params.models[study.shared.recipe]
    others = [model for model in study.seeds if params.models[model] != shared]
    recipes = [(OWN, model, params.models[model], study.seeds[model]) for model in study.seeds] + [
        (SHARED, model, shared, min(study.seeds[model], study.shared.seeds)) for model in others
    ]
    trials = {}
    for kind, model, recipe, seeds in recipes:
        for seed in range(first, first + seeds):
            trials[f"{kind}/{model}-{seed}"] = Trial(model, recipe, seed, None, tested=True)
    ablation = study.ablation
    for name, change in ablation.changes.items():
        recipe = changed(params.models[ablation.model], change.recipe, f"ablation.changes.{name}.recipe")
        widths = tuple(change.widths) if change.widths else None
        for seed in range(first, first + ablation.seeds):
            trials[f"{ABLATION}/{name}-{seed}"] = Trial(ablation.model, recipe, seed, widths, tested=False)
    return trials
