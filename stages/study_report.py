"""Put the study's records together: tables, picture."""

from pathlib import Path

from mnist_cnn import plotting
from mnist_cnn.files import write_text
from mnist_cnn.params import load, load_study
from mnist_cnn.study import EQUAL, OWN, load_records, plan
from mnist_cnn.study_report import ablation, markdown, steps, summary, trial_table
from stages import cli


def main(params: Path, study: Path, records: Path, table: Path, tables: Path, picture: Path) -> None:
    """Put the study's records together: all trials in one table, what they say in others, and a picture."""
    settings = load(params)
    planned = load_study(study, settings)
    trials = plan(settings, planned)
    found = load_records(records, trials)

    tested, target = trial_table(trials, found), settings.targets.test_accuracy
    summaries = summary(tested, target)
    compared = steps(trials, found, list(planned.seeds))
    ablated = ablation(trials, found, planned)
    for file, content in {
        table: tested,
        tables / "summary.csv": summaries,
        tables / "steps.csv": compared,
        tables / "ablation.csv": ablated,
    }.items():
        write_text(file, content.to_csv(index=False, lineterminator="\n"))
    write_text(tables / "study.md", markdown(summaries, compared, ablated, tested, target, planned))

    def accuracies(recipe: str) -> dict[str, list[float]]:
        by_model = tested[tested["recipe"] == recipe].groupby("model", sort=False)["test_accuracy"]
        return {str(model): values.tolist() for model, values in by_model}

    sizes = dict(zip(tested["model"], tested["parameters"], strict=True))
    figure = plotting.accuracy_over_seeds(accuracies(OWN), accuracies(EQUAL), sizes, settings, planned.equal.recipe)
    plotting.save(figure, picture)
    print(f"[INFO] {table}, {tables}, {picture}")


if __name__ == "__main__":
    cli.run(main)
