"""Put the study's records together: tables, figure."""

from pathlib import Path

from mnist_cnn.common.files import keep_only, write_text
from mnist_cnn.report.figures.seeds import accuracy_over_seeds
from mnist_cnn.report.figures.style import save
from mnist_cnn.report.study_tables import ablation, differences, headline, markdown, summary, trial_table
from mnist_cnn.settings.params import load
from mnist_cnn.settings.story import load_story
from mnist_cnn.study.plan import OWN, SHARED, plan
from mnist_cnn.study.records import load_records
from mnist_cnn.study.settings import load_study
from stages import run


def main(
    params: Path, story: Path, study: Path, records: Path, table: Path, tables: Path, picture: Path, vector: Path
) -> None:
    """Put the study's records together: all trials in one table, what they say in others, and a figure.

    Args:
        params: the settings, params.yaml.
        story: what each model is for, story.yaml.
        study: the study's settings.
        records: the folder of trials' records.
        table: written: a row a trial, CSV.
        tables: written: the folder of what they say together.
        picture: written: every seed's accuracy, PNG.
        vector: written: the same, SVG.
    """
    settings = load(params)
    planned = load_study(study, settings)
    trials = plan(settings, planned)
    found = load_records(records, trials)

    tested, target = trial_table(trials, found), settings.targets.test_accuracy
    summaries = summary(tested, target)
    compared = differences(trials, found, list(planned.seeds))
    ablated = ablation(trials, found, planned)
    texts = {
        "summary.csv": summaries.to_csv(index=False, lineterminator="\n"),
        "differences.csv": compared.to_csv(index=False, lineterminator="\n"),
        "ablation.csv": ablated.to_csv(index=False, lineterminator="\n"),
        "headline.md": headline(summaries, settings.targets),
        "study.md": markdown(summaries, compared, ablated, tested, target, planned, settings.data_set),
    }
    write_text(table, tested.to_csv(index=False, lineterminator="\n"))
    for name, text in texts.items():
        write_text(tables / name, text)
    keep_only(tables, texts)

    def accuracies(recipe: str) -> dict[str, list[float]]:
        by_model = tested[tested["recipe"] == recipe].groupby("model", sort=False)["test_accuracy"]
        return {str(model): values.tolist() for model, values in by_model}

    sizes = dict(zip(tested["model"], tested["parameters"], strict=True))
    told, recipe, targets = load_story(story, settings.data), planned.shared.recipe, settings.targets
    figure = accuracy_over_seeds(accuracies(OWN), accuracies(SHARED), sizes, targets, told, recipe, settings.data_set)
    save(figure, picture, vector)
    print(f"[INFO] {table}, {tables}, {picture}")


if __name__ == "__main__":
    run(main)
