"""The page of charts that the real dvc makes: it opens without a network, and draws everything."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from mnist_cnn.report.figures.style import COLOURS, model_style
from mnist_cnn.settings.params import load
from tests.browser import installed_browser
from tests.helpers import ROOT
from tests.pipeline.small_project import Project, copy_repository
from tools import plots_page

EPOCHS = {name: recipe.epochs for name, recipe in load(ROOT / "params.yaml").models.items()}
MODELS = tuple(EPOCHS)
# Comes before all others by its name, and after them by its colour.
NEW = "another"
BRIEFLY = 2


@dataclass
class Opened:
    """A page in a browser that has no network: its charts as drawn, by name, and what the browser complained of."""

    charts: dict[str, str]
    complaints: list[str]


@cache
def opened(page: Path) -> Opened:
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    options += [f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]
    # Whatever the page asked for would fail, and be complained of.
    options += ["--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command = [installed_browser(), *options, page.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    _, *charts = re.split(r'(?=<div id="\w+" class="vega-embed)', ended.stdout)
    by_name = {chart.split('"')[1]: chart.split("<details")[0] for chart in charts}
    return Opened(by_name, [line for line in ended.stderr.splitlines() if ":CONSOLE:" in line])


@dataclass(frozen=True)
class Line:
    """A curve as drawn."""

    label: str
    colour: str
    dash: str

    @property
    def model(self) -> str:
        found = re.search(r"model: (\w+)", self.label)
        assert found
        return found[1]


def lines(chart: str) -> list[Line]:
    pattern = r'<path aria-label="([^"]+)"[^>]* aria-roledescription="line mark" d="M[^"]+" stroke="(#\w+)"'
    return [Line(*found) for found in re.findall(pattern + r'[^>]* stroke-dasharray="([^"]+)"', chart)]


def count(chart: str, kind: str) -> int:
    return len(re.findall(rf'aria-roledescription="{kind}"', chart))


def names(models: tuple[str, ...]) -> set[str]:
    of_all = {"Validation_accuracy", "Learning_rates", "Losses", "Confusion_of_the_selected_model"}
    return of_all | {f"plots_{kind}_{model}_csv" for kind in ("history", "confusion", "recall") for model in models}


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The charts and what they show, as they are in this repository, in a clone that is set up."""
    project = Project(tmp_path_factory.mktemp("charts"), ROOT)
    shown = (".dvc/", "plots/", "dvc.yaml", "params.yaml", ".gitignore")
    copy_repository(project.folder, lambda name: name.startswith(shown))
    project.run("git", "init", "--quiet")
    project.dvc("config", "--local", "remote.store.url", "https://example.invalid/a")
    project.dvc("config", "--local", "remote.store.password", "a, b # c")
    project.commit()
    return project


@pytest.fixture(scope="module")
def one(charts: Project) -> Path:
    """The page of one revision."""
    plots_page.main(charts.folder / ".dvc")
    charts.dvc("plots", "show")
    return charts.folder / "dvc_plots/index.html"


@pytest.fixture(scope="module")
def two(charts: Project, one: Path) -> Path:
    """The page of two revisions; the second has one model more, trained so briefly that no other shows those epochs."""
    charts.edit_params(lambda params: params["models"].update({NEW: params["models"]["model_7"]}))
    for kind in ("history", "confusion", "recall"):
        shutil.copy(charts.folder / f"plots/{kind}/model_7.csv", charts.folder / f"plots/{kind}/{NEW}.csv")
    history = charts.folder / f"plots/history/{NEW}.csv"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[: 1 + BRIEFLY]))
    rows = charts.read("plots/curves.csv").splitlines()
    rows += [row.replace("model_7", NEW) for row in rows if row.endswith("model_7")][:BRIEFLY]
    (charts.folder / "plots/curves.csv").write_text("\n".join(rows) + "\n")
    charts.dvc("plots", "diff", "HEAD", "--out", "two")
    return charts.folder / "two/index.html"


def test_no_address_of_a_script_is_left_in_the_page(one: Path) -> None:
    page = one.read_text()
    assert set(re.findall(r"<(?:script|link|iframe|object)\b([^>]*)>", page)) <= {"", ' type = "text/javascript"'}
    assert page.count("vegaEmbed('#") == len(names(MODELS))
    assert not re.search(r"@import|\burl\(", re.findall(r"<style>(.*?)</style>", page, re.DOTALL)[0])
    pictures = re.findall(r'<img src="(static/[^"]+)"', page)
    assert len(pictures) == len(list((ROOT / "plots/pictures").glob("*.png")))
    assert all((one.parent / picture).is_file() for picture in pictures)


def test_set_up_leaves_the_settings_of_a_clone_and_git_as_they_are(charts: Project, one: Path) -> None:
    assert charts.dvc("config", "--local", "remote.store.password").stdout == "a, b # c\n"
    assert charts.dvc("config", "plots.html_template").stdout == "page.offline.html\n"
    assert ".dvc" not in charts.run("git", "status", "--porcelain").stdout
    assert "dvc_plots" not in charts.run("git", "status", "--porcelain").stdout


def test_every_chart_is_drawn_without_a_network(one: Path) -> None:
    page = opened(one)
    assert page.complaints == []
    assert set(page.charts) == names(MODELS)
    for name, chart in page.charts.items():
        drawn = {kind: count(chart, kind) for kind in ("line mark", "point", "rect mark")}
        assert chart.count('class="marks"') == 1, name
        assert any(drawn.values()), name
        assert not re.search(
            r"NaN|Infinity|(?<![\d.])\d{5}", "".join(re.findall(r' (?:d|transform|viewBox)="([^"]*)"', chart))
        )
    # A whole curve a model and loss, and of accuracies all but its first fifth; a whole matrix; a bar a digit.
    assert len(lines(page.charts["Losses"])) == 2 * len(MODELS)
    assert count(page.charts["Losses"], "point") == 2 * sum(EPOCHS.values())
    assert count(page.charts["Confusion_of_the_selected_model"], "rect mark") == 100
    for model, epochs in EPOCHS.items():
        assert count(page.charts[f"plots_history_{model}_csv"], "point") == 2 * epochs
        assert count(page.charts[f"plots_confusion_{model}_csv"], "rect mark") == 100
        assert count(page.charts[f"plots_recall_{model}_csv"], "point") == 10
    # Of one revision, nothing is said.
    assert not [name for name, chart in page.charts.items() if ">revision<" in chart or ">workspace<" in chart]


def test_a_model_has_its_colour_in_every_chart(one: Path) -> None:
    page = opened(one)
    for name in ("Validation_accuracy", "Learning_rates", "Losses"):
        drawn = {line.model: line.colour for line in lines(page.charts[name])}
        assert drawn == {model: model_style(model)[0] for model in MODELS}
    for model in MODELS:
        colour = model_style(model)[0]
        assert {line.colour for line in lines(page.charts[f"plots_history_{model}_csv"])} == {colour}
        assert page.charts[f"plots_recall_{model}_csv"].count(f'fill="{colour}"') >= 10


def test_two_revisions_are_told_apart_and_a_model_more_is_drawn(two: Path) -> None:
    page = opened(two)
    assert page.complaints == []
    assert set(page.charts) == names((*MODELS, NEW))
    for name in ("Validation_accuracy", "Learning_rates", "Losses"):
        drawn = lines(page.charts[name])
        first, second = ({line for line in drawn if f"revision: {rev}" in line.label} for rev in ("HEAD", "workspace"))
        assert {line.model for line in first} == set(MODELS)
        assert {line.model for line in second} == {*MODELS, NEW}
        [dash], [other_dash] = {line.dash for line in first}, {line.dash for line in second}
        assert dash != other_dash
        # In the same colours, and the new model in the one that it would have in the pictures.
        colours = {line.model: line.colour for line in second}
        assert {line.model: line.colour for line in first} | {NEW: COLOURS[len(MODELS) % len(COLOURS)]} == colours
    for name, chart in page.charts.items():
        if NEW not in name:
            assert ">HEAD<" in chart and ">workspace<" in chart, name


def test_a_clone_that_is_not_set_up_has_dvcs_own_page_which_needs_a_network(charts: Project, one: Path) -> None:
    settings = charts.folder / ".dvc/config.local"
    kept = settings.read_text()
    settings.unlink()
    charts.dvc("plots", "show", "--out", "own")
    settings.write_text(kept)
    page = charts.folder / "own/index.html"
    assert len(re.findall(r'<script src="https://', page.read_text())) == 3
    found = opened(page)
    assert found.charts == {} and found.complaints
