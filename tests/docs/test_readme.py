"""What the README says is what the repository holds."""

import json
import re
import subprocess
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tools.pages import with_tables

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TEXT = " ".join(README.split())
SELECTED = json.loads((ROOT / "metrics/selected.json").read_text())


def rows(table: str, *keys: str) -> dict[Any, dict[Hashable, Any]]:
    """A table of metrics/ by its keys."""
    records = pd.read_csv(ROOT / "metrics" / table).to_dict("records")
    return {tuple(row[key] for key in keys) if keys[1:] else row[keys[0]]: row for row in records}


OVER_SEEDS = rows("study/summary.csv", "recipe", "model")


def test_the_tables_are_the_generated_ones() -> None:
    assert with_tables(README, ROOT) == README, "run 'make readme'"
    for name in ("comparison", "benchmark", "study/study"):
        assert (ROOT / f"metrics/{name}.md").read_text() in README


def test_the_headline_is_the_selected_models_over_its_seeds() -> None:
    own = OVER_SEEDS["own", SELECTED["model"]]
    network = f"after {SELECTED['epochs']} epochs, with {SELECTED['parameters']:,} parameters."
    assert (
        f"**{SELECTED['model']} recognises {own['mean']:.2f} % of the test set on average over {own['seeds']} seeds, "
        f"the lowest {own['minimum']:.2f} %, {network}**"
    ) in TEXT
    assert f"{SELECTED['model']} recognises {SELECTED['test_accuracy']:.2f} % of the test set {network}" in TEXT


def test_what_is_said_of_the_seeds_is_so() -> None:
    fifth, sixth, seventh = (OVER_SEEDS["own", f"model_{number}"] for number in (5, 6, 7))
    gains = [
        OVER_SEEDS["equal", f"model_{number}"]["mean"] - OVER_SEEDS["own", f"model_{number}"]["mean"]
        for number in (1, 2, 3, 4, 5)
    ]
    ablation = rows("study/ablation.csv", "change")
    changes = [row for name, row in ablation.items() if name != "none"]
    sure = [row["change"] for row in changes if not row["difference_low"] <= 0 <= row["difference_high"]]
    step = rows("study/steps.csv", "recipe", "from")["own", "model_5"]
    best = max(OVER_SEEDS.values(), key=lambda row: row["mean"])
    more = 100 * (ablation["wider"]["parameters"] / sixth["parameters"] - 1)
    assert min(fifth["minimum"], sixth["minimum"], seventh["minimum"]) > 99.4
    assert 0 < step["low"] < 0.001 and step["difference"] < 0.05
    assert (best["recipe"], best["model"]) == ("equal", "model_1")
    assert (sure, len(changes), ablation["none"]["seeds"]) == (["no_average"], 10, 3)
    for said in (
        f"Model_7 has {seventh['parameters']:,}: {seventh['mean']:.2f} % on average, "
        f"the lowest {seventh['minimum']:.2f} %",
        f"the lowest at {fifth['minimum']:.2f}, {sixth['minimum']:.2f} and {seventh['minimum']:.2f} %",
        f"The means of 5 and 6 are {fifth['mean']:.2f} and {sixth['mean']:.2f} %",
        f"misses them by {99.6 - sixth['mean']:.2f} and {99.5 - sixth['minimum']:.2f}",
        f"model_5 was to have 99.50 and has {fifth['mean']}",
        f"recognises {sixth['train_mean']:.2f} % of the training images",
        f"{more:.0f} % more parameters give it {ablation['wider']['difference']:.2f} points of validation accuracy",
        f"{seventh['seeds'] * seventh['meets_target']:.0f} seeds of {seventh['seeds']}, and the mean is "
        f"{seventh['mean']:.2f} %, by chance between {seventh['seeds_low']:.2f} and {seventh['seeds_high']:.2f} %",
        f"That is {sixth['mean'] - seventh['mean']:.2f} points less than model_6 has",
        f"given model_6 {sixth['mean'] - 99.501:.2f} points of test accuracy",
        f"weights without their average, by {ablation['no_average']['difference']:.2f} points",
        "model_1 gains {:.2f} points, model_2 {:.2f}, model_3 {:.2f}, model_4 {:.2f} and model_5 {:.2f}".format(*gains),
        f"is then the best of all, at {best['mean']:.2f} %",
    ):
        assert said in TEXT, said


@pytest.mark.parametrize(
    ("model", "brief"),
    [("model_1", 99.05), ("model_2", 98.80), ("model_3", 99.11), ("model_4", 97.39), ("model_5", 99.40)],
)
def test_every_model_is_at_or_above_the_briefs_figure_for_it(model: str, brief: float) -> None:
    assert json.loads((ROOT / f"metrics/{model}.json").read_text())["test_accuracy"] >= brief


def test_every_picture_is_shown_and_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []
    pictures = {path.relative_to(ROOT).as_posix() for path in (ROOT / "plots").glob("*/*.png")}
    assert pictures == {link for link in links if link.endswith(".png")}


def test_the_tree_names_what_is_there() -> None:
    [tree] = [block for block in README.split("```")[1::2] if "\ndvc.lock " in block]
    lines = tree.strip().splitlines()
    names = {"src/mnist_cnn/" + line.split()[0] if line[0] == " " else line.split()[0] for line in lines}
    assert [name for name in names if not (ROOT / name).exists()] == []
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {Path(name).parts[0] for name in listed.stdout.splitlines()}
    visible = {name + ("/" if (ROOT / name).is_dir() else "") for name in tracked if not name.startswith(".")}
    assert visible - {"src/"} <= names | {"src/mnist_cnn/"}
    library = {f"src/mnist_cnn/{path.name}" for path in (ROOT / "src/mnist_cnn").glob("[!_]*.py")}
    assert library - names == {"src/mnist_cnn/errors.py", "src/mnist_cnn/files.py"}


def test_every_make_command_is_a_target() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make (\w+)", README, re.MULTILINE)) <= targets


def test_the_commands_without_make_are_makes_own() -> None:
    block = README.split("## Without make\n")[1].split("```bash\n")[1].split("```")[0]
    makefile = (ROOT / "Makefile").read_text().replace("--quiet --disable-pip-version-check ", "")
    makefile = makefile.replace("$(PYTHON)", "python3").replace("--requirement", "-r").replace("--editable", "-e")
    for line in block.splitlines():
        command = re.sub(r"\s+#.*", "", line)
        if command not in ("source .venv/bin/activate", "dvc repro"):
            assert command in makefile, command


def test_the_first_commands_are_the_two_that_set_everything_up() -> None:
    first = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)[0]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make repro", "make test"]


def test_the_committed_results_are_those_of_the_committed_code() -> None:
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "Running stage" not in told, told
    assert "up to date" in told


def test_the_results_were_made_on_all_of_mnist_with_every_model() -> None:
    split = (ROOT / "params.yaml").read_text()
    assert re.search(r"^  train: 55000$", split, re.MULTILINE) and re.search(r"^  val: 5000$", split, re.MULTILINE)
    for name in ("model_1", "model_2", "model_3", "model_4", "model_5"):
        assert json.loads((ROOT / f"metrics/{name}.json").read_text())["epochs"] == 15
