"""The records of the study as tables: all trials, each model over its seeds, each step of the story, the ablation."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from statistics import mean, median, stdev
from typing import Any

import pandas as pd

from mnist_cnn.evaluation.intervals import mcnemar, student_interval, wilson_interval
from mnist_cnn.report.markdown import table
from mnist_cnn.study.plan import ABLATION, OWN, SHARED, Trial
from mnist_cnn.study.records import Record
from mnist_cnn.study.settings import Study

# Differences with a smaller p-value count as significant.
SIGNIFICANT = 0.05

Trials = Mapping[str, Trial]
Records = Mapping[str, Record]


def trial_table(trials: Trials, records: Records) -> pd.DataFrame:
    """A row a tested trial: model, recipe (own or shared), seed, size, accuracies in percent.

    ``test_accuracy`` is of the final weights; ``_raw`` of the last step's; ``_ema`` of their EMA, missing where the
    recipe has none. ``_best_epoch`` is the highest of all epochs, chosen by the test set, of the final and of the raw
    weights: what is usually reported.
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
                "test_images": record["test_images"],
                "train_accuracy": record["train_accuracy"],
                "val_accuracy": record["val_accuracy"],
                "test_accuracy": record["test_accuracy"],
                "test_accuracy_raw": raw[-1],
                "test_accuracy_ema": record["test_accuracy"] if trial.recipe.ema_decay else None,
                "test_accuracy_best_epoch": max(record["test_by_epoch"]["final"]),
                "test_accuracy_raw_best_epoch": max(raw),
            }
        )
    return pd.DataFrame(rows)


def summary(tested: pd.DataFrame, target: float) -> pd.DataFrame:
    """A row a model and recipe: its test accuracy over the seeds, in percent.

    ``seeds_low`` to ``seeds_high`` is Student's 95 % interval for the mean over all seeds, ``images_low`` to
    ``images_high`` Wilson's for the mean over all images of the kind. ``meets_target`` is the fraction of seeds that
    do, ``inflation`` what choosing the epoch on the test set would add to the mean, in points.
    """
    rows = []
    for (model, recipe), group in tested.groupby(["model", "recipe"], sort=False):
        accuracies = group["test_accuracy"].tolist()
        low, high = student_interval(accuracies)
        images = int(group["test_images"].iloc[0])
        images_low, images_high = wilson_interval(round(mean(accuracies) / 100 * images), images)
        rows.append(
            {
                "model": model,
                "recipe": recipe,
                "parameters": group["parameters"].iloc[0],
                "seeds": len(group),
                "train_mean": group["train_accuracy"].mean(),
                "val_mean": group["val_accuracy"].mean(),
                "mean": mean(accuracies),
                "std": stdev(accuracies) if len(accuracies) > 1 else None,
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


def differences(trials: Trials, records: Records, order: Sequence[str]) -> pd.DataFrame:
    """A row for each model in ``order`` and the next one: how much more test accuracy does the later one have?

    Compared with the same seed. Of the models, ``difference`` is the mean of what the later one has more, in points,
    ``low`` to ``high`` its 95 % interval over seeds by Student's t. Of two networks, ``gained`` and ``lost`` are the
    test images that only the later or only the earlier classifies correctly, on average; ``p`` is the median of
    McNemar's exact test over the seeds, ``significant`` of the ``pairs`` lie below 5 %.
    """
    shared = trials_by(SHARED, trials)
    own = {model for model, found in shared.items() if all(name.startswith(OWN) for name in found)}
    rows = []
    for recipe, of_recipe in ((OWN, trials_by(OWN, trials)), (SHARED, shared)):
        by_seed = {
            model: {trial.seed: records[name] for name, trial in found.items()} for model, found in of_recipe.items()
        }
        for earlier, later in pairwise(model for model in order if model in by_seed):
            if recipe == SHARED and {earlier, later} <= own:
                continue  # the very same trials as by their own recipes
            rows.append({"recipe": recipe, "from": earlier, "to": later} | _compared(by_seed[earlier], by_seed[later]))
    return pd.DataFrame(rows).round({"difference": 4, "low": 4, "high": 4})


def _compared(earlier: Mapping[int, Record], later: Mapping[int, Record]) -> dict[str, float]:
    """Two models' records by seed, compared with the same seed."""
    seeds = sorted(earlier.keys() & later.keys())
    pairs = [(set(earlier[seed]["misclassified"]), set(later[seed]["misclassified"])) for seed in seeds]
    gains = [later[seed]["test_accuracy"] - earlier[seed]["test_accuracy"] for seed in seeds]
    low, high = student_interval(gains)
    values = [mcnemar(before, after) for before, after in pairs]
    return {
        "pairs": len(pairs),
        "difference": mean(gains),
        "low": low,
        "high": high,
        "gained": mean(len(before - after) for before, after in pairs),
        "lost": mean(len(after - before) for before, after in pairs),
        "p": median(values),
        "significant": sum(value < SIGNIFICANT for value in values),
    }


def ablation(trials: Trials, records: Records, study: Study) -> pd.DataFrame:
    """A row a change, after one for the model as it is: validation accuracy over the seeds, in percent.

    ``difference`` is the mean over seeds of what the change adds, in points, ``difference_low`` to
    ``difference_high`` its 95 % interval by Student's t.
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


def trials_by(recipe: str, trials: Trials) -> dict[str, dict[str, Trial]]:
    """The tested trials by a recipe, own or shared, by model and name.

    A model whose own recipe is the shared one was not trained twice: its own trials are both.
    """
    own, shared = (
        {name: trial for name, trial in trials.items() if name.startswith(f"{kind}/")} for kind in (OWN, SHARED)
    )
    others = {trial.model for trial in shared.values()}
    both = {name: trial for name, trial in own.items() if trial.model not in others}
    found: dict[str, dict[str, Trial]] = {}
    for name, trial in (own if recipe == OWN else both | shared).items():
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
    """All of it as Markdown: models, differences, ablation, what choosing on the test set adds."""
    sections = [
        "<!-- Generated by `make study`: change the study, not these tables. -->\n" + _models(summaries, target, study),
        _differences(compared, study),
        _changes(ablated, study),
        _inflation(tested),
    ]
    return "\n\n".join(sections) + "\n"


def _models(summaries: pd.DataFrame, target: float, study: Study) -> str:
    by_recipe: dict[str, dict[str, dict[Hashable, Any]]] = {OWN: {}, SHARED: {}}
    for row in summaries.to_dict("records"):
        by_recipe[row["recipe"]][row["model"]] = row

    def average(row: dict[Hashable, Any], mark: str = "") -> str:
        spread = "" if pd.isna(row["std"]) else f" ± {row['std']:.2f}"
        return f"{mark}{row['mean']:.2f}{mark}{spread}"

    def extent(row: dict[Hashable, Any], of: str, to: str) -> str:
        return "" if pd.isna(row[of]) else f"{row[of]:.2f} to {row[to]:.2f}"

    rows = []
    for model, row in by_recipe[OWN].items():
        shared = by_recipe[SHARED].get(model)
        rows.append(
            [
                model,
                f"{row['parameters']:,}",
                average(row, "**"),
                extent(row, "minimum", "maximum"),
                extent(row, "seeds_low", "seeds_high"),
                extent(row, "images_low", "images_high"),
                f"{round(row['meets_target'] * row['seeds'])} of {row['seeds']}",
                f"{average(shared)}<br>{extent(shared, 'minimum', 'maximum')}" if shared else "its own",
            ]
        )
    header = [
        *("Model", "Parameters", "Test accuracy, %", "Lowest to highest seed", "95 % interval over seeds"),
        *("… over images", f"Seeds at {target:g} %", f"By {study.shared.recipe}'s recipe"),
    ]
    return table(header, rows)


def _differences(compared: pd.DataFrame, study: Study) -> str:
    rows = []
    for row in compared.to_dict("records"):
        significant = row["low"] > 0 or row["high"] < 0
        rows.append(
            [
                f"{row['from']} → {row['to']}",
                "their own" if row["recipe"] == OWN else f"{study.shared.recipe}'s",
                _difference(row["difference"], row["low"], row["high"]),
                ("**gain**" if row["low"] > 0 else "**loss**") if significant else "no",
                f"{row['gained']:.0f} and {row['lost']:.0f}",
                f"{row['p']:.2g}" if row["p"] >= 0.001 else "< 0.001",
                f"{row['significant']} of {row['pairs']}",
            ]
        )
    header = [
        *("Step", "Recipes", "Points of test accuracy, 95 % interval", "Significant?"),
        *("Test images gained and lost", "Median p of two networks", "Pairs with p < 0.05"),
    ]
    return table(header, rows)


def _difference(points: float, low: float, high: float) -> str:
    return _signed(points) + ("" if pd.isna(low) else f"<br>{_signed(low)} to {_signed(high)}")


def _signed(points: float) -> str:
    """With its sign, unless it rounds to nothing."""
    return f"{points:+.2f}" if round(points, 2) else "0.00"


def _changes(ablated: pd.DataFrame, study: Study) -> str:
    rows = []
    for row in ablated.to_dict("records"):
        interval = _difference(row["difference"], row["difference_low"], row["difference_high"])
        rows.append(
            [
                str(row["change"]).replace("_", " "),
                f"{row['parameters']:,}",
                f"{row['train_mean']:.2f}",
                f"{row['val_mean']:.2f}",
                "" if row["change"] == "none" else interval,
            ]
        )
    header = [
        *(f"{study.ablation.model}, changed", "Parameters", "Training, %"),
        *(f"Validation, %, mean of {study.ablation.seeds} seeds", "Difference, 95 % interval"),
    ]
    return table(header, rows)


def _inflation(tested: pd.DataFrame) -> str:
    """What the usual protocol would have reported of the same runs, those by the models' own recipes."""
    own = tested[tested["recipe"] == OWN]
    final = (own["test_accuracy_best_epoch"] - own["test_accuracy"]).mean()
    raw = own["test_accuracy_raw_best_epoch"] - own["test_accuracy_raw"]
    most = raw.groupby(own["model"]).mean()
    means = own.groupby("model")["test_accuracy"].mean()
    best = own[own["model"] == means.idxmax()]
    highest = best[["test_accuracy_best_epoch", "test_accuracy_raw_best_epoch"]].max().max()
    return (
        f"**What the usual protocol would have reported of the {len(own)} runs by the models' own recipes.** "
        f"Choosing each run's epoch by its test accuracy adds {raw.mean():.2f} points on average to the weights of the "
        f"last step, for {most.idxmax()} {most.max():.2f}; to the final weights it adds {final:.2f}. The best epoch of "
        f"{means.idxmax()}'s best seed has {highest:.2f} %; the last epochs of its seeds have {means.max():.2f} % on "
        "average."
    )
