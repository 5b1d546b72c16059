"""What the README says is what the repository holds."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_cnn.readme import with_tables

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_tables_are_the_generated_ones() -> None:
    assert with_tables(README, ROOT) == README, "run 'make readme'"
    for name in ("comparison", "benchmark"):
        assert (ROOT / f"metrics/{name}.md").read_text() in README


def test_the_headline_is_the_selected_models() -> None:
    selected = json.loads((ROOT / "metrics/selected.json").read_text())
    headline = (
        f"**{selected['model']} recognises {selected['test_accuracy']:.2f} % of the test set after "
        f"{selected['epochs']} epochs, with {selected['parameters']:,} parameters.**"
    )
    assert headline in " ".join(README.split())


@pytest.mark.parametrize(
    ("model", "brief"),
    [("model_1", 99.05), ("model_2", 98.80), ("model_3", 99.11), ("model_4", 97.39), ("model_5", 99.40)],
)
def test_every_model_is_at_or_above_the_briefs_figure_for_it(model: str, brief: float) -> None:
    assert json.loads((ROOT / f"metrics/{model}.json").read_text())["test_accuracy"] >= brief


def test_every_picture_is_shown_and_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []
    pictures = {path.relative_to(ROOT).as_posix() for path in (ROOT / "plots/pictures").glob("*.png")}
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
