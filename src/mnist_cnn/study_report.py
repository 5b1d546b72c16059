"""The records of the study as tables: all trials, each model over its seeds, each step of the story, the ablation."""

from collections.abc import Hashable, Sequence
from itertools import pairwise
from statistics import mean, median, stdev
from typing import Any

import pandas as pd

from mnist_cnn.metrics import wilson_interval
from mnist_cnn.params import TEST_IMAGES, Study
from mnist_cnn.significance import mcnemar, student_interval
from mnist_cnn.study import ABLATION, EQUAL, OWN, Record, Trial

# What is less probable than this by chance counts as significant.
SIGNIFICANT = 0.05


def trial_table(trials: dict[str, Trial], records: dict[str, Record]) -> pd.DataFrame:
    """A row a tested trial: model, recipe (own or equal), seed, size, accuracies in percent.

    ``test_accuracy`` is of the weights that the recipe delivers after its last epoch; ``_raw`` of the last step's;
    ``_averaged`` of their average, missing where the recipe averages nothing. ``_best_epoch`` is the highest of all
    epochs, chosen by the test set, of the delivered and of the raw weights: what is usually shown.
    """
    rows = []
    for name, trial in trials.items():
        if not trial.tested:
            continue
        record, raw = records[name], records[name]["test_by_epoch"]["raw"]
        rows.append(
            {
                "model": trial.model,
                "recipe": name.split("/")[0],
                "seed": trial.seed,
                "epochs": record["epochs"],
                "parameters": record["parameters"],
                "train_accuracy": record["train_accuracy"],
                "val_accuracy": record["val_accuracy"],
                "test_accuracy": record["test_accuracy"],
                "test_accuracy_raw": raw[-1],
                "test_accuracy_averaged": record["test_accuracy"] if trial.recipe.weight_average else None,
                "test_accuracy_best_epoch": max(record["test_by_epoch"]["delivered"]),
                "test_accuracy_raw_best_epoch": max(raw),
            }
        )
    return pd.DataFrame(rows)


def summary(tested: pd.DataFrame, target: float) -> pd.DataFrame:
    """A row a model and recipe: its test accuracy over the seeds, in percent.

    ``seeds_low`` to ``seeds_high`` is Student's 95 % interval for the mean over all seeds, ``images_low`` to
    ``images_high`` Wilson's for the mean over all images of the kind. ``meets_target`` is the share of the seeds that
    do, ``inflation`` what choosing the epoch on the test set would add to the mean, in points.
    """
    rows = []
    for (model, recipe), group in tested.groupby(["model", "recipe"], sort=False):
        accuracies = group["test_accuracy"].tolist()
        low, high = student_interval(accuracies)
        images_low, images_high = wilson_interval(mean(accuracies) / 100 * TEST_IMAGES, TEST_IMAGES)
        rows.append(
            {
                "model": model,
                "recipe": recipe,
                "parameters": group["parameters"].iloc[0],
                "seeds": len(group),
                "train_mean": group["train_accuracy"].mean(),
                "val_mean": group["val_accuracy"].mean(),
                "mean": mean(accuracies),
                "deviation": stdev(accuracies) if len(accuracies) > 1 else None,
                "minimum": min(accuracies),
                "maximum": max(accuracies),
                "seeds_low": low,
                "seeds_high": high,
                "images_low": images_low,
                "images_high": images_high,
                "meets_target": (group["test_accuracy"] >= target).mean(),
                "inflation": (group["test_accuracy_best_epoch"] - group["test_accuracy"]).mean(),
            }
        )
    return pd.DataFrame(rows).round(4)


def steps(trials: dict[str, Trial], records: dict[str, Record], order: Sequence[str]) -> pd.DataFrame:
    """A row a step from one model to the next in ``order``: is it real, or luck?

    Compared with the same seed. Of the models, ``difference`` is the mean of what the later one has more test accuracy,
    in points, ``low`` to ``high`` its 95 % interval over seeds by Student's t. Of two networks, ``gained`` and ``lost``
    are the test images that only the later or only the earlier recognises, on average; ``p`` is the median of McNemar's
    exact test over the seeds, ``significant`` of the ``pairs`` lie below 5 %.
    """
    own = {model for model, found in trials_by(EQUAL, trials).items() if all(name.startswith(OWN) for name in found)}
    rows = []
    for recipe in (OWN, EQUAL):
        misread = {
            model: {trial.seed: set(records[name]["misread"]) for name, trial in found.items()}
            for model, found in trials_by(recipe, trials).items()
        }
        for earlier, later in pairwise(model for model in order if model in misread):
            if recipe == EQUAL and {earlier, later} <= own:
                continue  # the very same trials as by their own recipes
            seeds = sorted(misread[earlier].keys() & misread[later].keys())
            pairs = [(misread[earlier][seed], misread[later][seed]) for seed in seeds]
            differences = [(len(before) - len(after)) / TEST_IMAGES * 100 for before, after in pairs]
            low, high = student_interval(differences)
            values = [mcnemar(before, after) for before, after in pairs]
            rows.append(
                {
                    "recipe": recipe,
                    "from": earlier,
                    "to": later,
                    "pairs": len(pairs),
                    "difference": mean(differences),
                    "low": low,
                    "high": high,
                    "gained": mean(len(before - after) for before, after in pairs),
                    "lost": mean(len(after - before) for before, after in pairs),
                    "p": median(values),
                    "significant": sum(value < SIGNIFICANT for value in values),
                }
            )
    return pd.DataFrame(rows).round({"difference": 4, "low": 4, "high": 4})


def ablation(trials: dict[str, Trial], records: dict[str, Record], study: Study) -> pd.DataFrame:
    """A row a change, after one for the model as it is: validation accuracy over the seeds, in percent.

    ``difference`` is the mean over seeds of what the change adds, in points, ``difference_low`` to
    ``difference_high`` its 95 % interval by Student's t. The last column tells how many parameters it leaves.
    """
    model = study.ablation.model
    seeds = [trial.seed for name, trial in trials.items() if name.startswith(f"{ABLATION}/")]
    order = list(dict.fromkeys(seeds))
    unchanged = [records[f"{OWN}/{model}-{seed}"] for seed in order]
    rows = []
    for name in ("", *study.ablation.changes):
        found = [records[f"{ABLATION}/{name}-{seed}"] for seed in order] if name else unchanged
        values = [record["val_accuracy"] for record in found]
        gains = [value - record["val_accuracy"] for value, record in zip(values, unchanged, strict=True)]
        low, high = student_interval(gains)
        rows.append(
            {
                "change": name or "none",
                "parameters": found[0]["parameters"],
                "seeds": len(values),
                "train_mean": mean(record["train_accuracy"] for record in found),
                "val_mean": mean(values),
                "val_minimum": min(values),
                "difference": mean(gains),
                "difference_low": low,
                "difference_high": high,
            }
        )
    return pd.DataFrame(rows).round(4)


def trials_by(recipe: str, trials: dict[str, Trial]) -> dict[str, dict[str, Trial]]:
    """The tested trials by a recipe, own or equal, by model and name.

    A model whose own recipe is the equal one was not trained twice: its own trials are both.
    """
    own, equal = (
        {name: trial for name, trial in trials.items() if name.startswith(f"{kind}/")} for kind in (OWN, EQUAL)
    )
    others = {trial.model for trial in equal.values()}
    both = {name: trial for name, trial in own.items() if trial.model not in others}
    found: dict[str, dict[str, Trial]] = {}
    for name, trial in (own if recipe == OWN else both | equal).items():
        found.setdefault(trial.model, {})[name] = trial
    return found


def markdown(
    summaries: pd.DataFrame,
    compared: pd.DataFrame,
    ablated: pd.DataFrame,
    tested: pd.DataFrame,
    target: float,
    study: Study,
) -> str:
    """All of it as Markdown: the models, the steps between them, the ablation, what choosing on the test set adds."""
    parts = [
        "<!-- Generated by `make study`: change the study, not these tables. -->\n" + _models(summaries, target, study),
        _steps(compared, study),
        _changes(ablated, study),
        _inflation(tested),
    ]
    return "\n\n".join(parts) + "\n"


def _models(summaries: pd.DataFrame, target: float, study: Study) -> str:
    by_recipe: dict[str, dict[str, dict[Hashable, Any]]] = {OWN: {}, EQUAL: {}}
    for row in summaries.to_dict("records"):
        by_recipe[row["recipe"]][row["model"]] = row

    def average(row: dict[Hashable, Any], mark: str = "") -> str:
        deviation = "" if pd.isna(row["deviation"]) else f" ± {row['deviation']:.2f}"
        return f"{mark}{row['mean']:.2f}{mark}{deviation}"

    def extent(row: dict[Hashable, Any], of: str, to: str) -> str:
        return "" if pd.isna(row[of]) else f"{row[of]:.2f} to {row[to]:.2f}"

    rows = []
    for model, row in by_recipe[OWN].items():
        equal = by_recipe[EQUAL].get(model)
        rows.append(
            [
                model,
                f"{row['parameters']:,}",
                average(row, "**"),
                extent(row, "minimum", "maximum"),
                extent(row, "seeds_low", "seeds_high"),
                extent(row, "images_low", "images_high"),
                f"{round(row['meets_target'] * row['seeds'])} of {row['seeds']}",
                f"{average(equal)}<br>{extent(equal, 'minimum', 'maximum')}" if equal else "its own",
            ]
        )
    header = [
        *("Model", "Parameters", "Test accuracy (%)", "Lowest to highest seed", "95 % interval over seeds"),
        *("… over images", f"Seeds at {target:g} %", f"By {study.equal.recipe}'s recipe"),
    ]
    return _table(header, rows)


def _steps(compared: pd.DataFrame, study: Study) -> str:
    rows = []
    for row in compared.to_dict("records"):
        if row["low"] > 0:
            verdict = "**real**"
        else:
            verdict = "**real**, and a loss" if row["high"] < 0 else "can be luck"
        rows.append(
            [
                f"{row['from']} → {row['to']}",
                "their own" if row["recipe"] == OWN else f"{study.equal.recipe}'s",
                _difference(row["difference"], row["low"], row["high"]),
                verdict,
                f"{row['gained']:.0f} and {row['lost']:.0f}",
                f"{row['p']:.2g}" if row["p"] >= 0.001 else "< 0.001",
                f"{row['significant']} of {row['pairs']}",
            ]
        )
    header = [
        *("Step", "Recipes", "Points of test accuracy, 95 % interval", "Real or luck?"),
        *("Test images gained and lost", "p of two networks", "Pairs with p < 0.05"),
    ]
    return _table(header, rows)


def _difference(points: float, low: float, high: float) -> str:
    return _signed(points) + ("" if pd.isna(low) else f"<br>{_signed(low)} to {_signed(high)}")


def _signed(points: float) -> str:
    """With its sign, unless it rounds to nothing."""
    return f"{points:+.2f}" if round(points, 2) else "0.00"


def _changes(ablated: pd.DataFrame, study: Study) -> str:
    rows = []
    for row in ablated.to_dict("records"):
        rows.append(
            [
                str(row["change"]).replace("_", " "),
                f"{row['parameters']:,}",
                f"{row['train_mean']:.2f}",
                f"{row['val_mean']:.2f}",
                ""
                if row["change"] == "none"
                else _difference(row["difference"], row["difference_low"], row["difference_high"]),
            ]
        )
    header = [
        *(f"{study.ablation.model}, changed", "Parameters", "Training (%)"),
        *(f"Validation (%), mean of {study.ablation.seeds} seeds", "Difference, 95 % interval"),
    ]
    return _table(header, rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def _inflation(tested: pd.DataFrame) -> str:
    """What the usual protocol would have shown on the same runs, those by the models' own recipes."""
    own = tested[tested["recipe"] == OWN]
    delivered = (own["test_accuracy_best_epoch"] - own["test_accuracy"]).mean()
    raw = own["test_accuracy_raw_best_epoch"] - own["test_accuracy_raw"]
    most = raw.groupby(own["model"]).mean()
    means = own.groupby("model")["test_accuracy"].mean()
    best = own[own["model"] == means.idxmax()]
    luckiest = best[["test_accuracy_best_epoch", "test_accuracy_raw_best_epoch"]].max().max()
    return (
        f"**What the field's usual protocol would have shown on the {len(own)} runs by the models' own recipes.** "
        f"Choosing each run's epoch by its test figure adds {raw.mean():.2f} points on average to the weights of the "
        f"last step, for {most.idxmax()} {most.max():.2f}; to averaged weights, which are what is delivered, it adds "
        f"{delivered:.2f}. The luckiest epoch of {means.idxmax()}'s luckiest seed has {luckiest:.2f} %; the last "
        f"epochs of its seeds have {means.max():.2f} % on average."
    )
