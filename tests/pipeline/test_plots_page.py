"""The page of ``dvc plots``, opened in a browser that has no network."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pipeline.small_project import Project
from tests.pipeline.test_experiments import printed, run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)


def set_up(project: Project) -> None:
    [command] = [command for command in printed("Without make") if "plots_page" in command]
    run(project, command)


def page_of(project: Project, *arguments: str) -> Path:
    return Path(project.dvc("plots", *arguments).stdout.strip().removeprefix("file://"))


def charts_on(page: Path) -> list[str]:
    return re.findall(r"vegaEmbed\('#(\w+)', spec\)", page.read_text())


def opened(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The page as the browser has it once all is drawn, and what its console says."""
    assert BROWSER
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command += ["--proxy-server=127.0.0.1:9", "--enable-logging=stderr", "--virtual-time-budget=30000", "--dump-dom"]
    ended = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return ended.stdout, re.findall(r"CONSOLE.*", ended.stderr)


@pytest.mark.skipif(BROWSER is None, reason=f"no browser is installed: none of {', '.join(BROWSERS)}")
@pytest.mark.parametrize("command", [["show"], ["diff", "HEAD"]])
def test_without_a_network_every_chart_is_drawn(project: Project, tmp_path: Path, command: list[str]) -> None:
    set_up(project)
    project.edit_params(lambda params: params.update(model="model_1"))
    project.repro()
    page = page_of(project, *command)
    charts = charts_on(page)
    assert len(charts) == 4 + 3 * 3
    drawn, console = opened(page, tmp_path / "profile")
    assert console == []
    for chart in charts:
        box = drawn.split(f'id="{chart}"')[1].split("<details")[0]
        marks = re.findall(r'<g class="mark-(?:line|rect|symbol)[^>]*role-mark.*?</g>', box, re.DOTALL)
        assert any(re.search(r'<path[^>]* d="M', mark) for mark in marks), chart
    assert len(re.findall(r'<img src="static', drawn)) == 6 * len(command)


def test_set_up_leaves_no_address_of_a_script_and_other_settings_alone(project: Project) -> None:
    project.dvc("config", "--local", "core.autostage", "true")
    set_up(project)
    once = (project.folder / ".dvc/plots_page.html").read_bytes()
    set_up(project)
    assert (project.folder / ".dvc/plots_page.html").read_bytes() == once
    page = page_of(project, "show").read_text()
    assert not re.search(r"""<(?:script|link)[^>]*\b(?:src|href)\s*=""", page)
    assert project.dvc("config", "core.autostage").stdout.strip() == "true"
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_a_clone_without_set_up_has_dvcs_own_page(project: Project) -> None:
    assert charts_on(page_of(project, "show"))


def test_a_page_without_a_place_for_the_scripts_is_refused(project: Project) -> None:
    page = project.folder / ".dvc/plots/page.html"
    page.write_text(page.read_text().replace("{scripts}", ""))
    command = ["python", "-m", "stages.plots_page", "--page", str(page), "--template", ".dvc/plots_page.html"]
    ended = project.run(*command, check=False)
    assert ended.returncode == 1 and ended.stderr.startswith("error: ") and "{scripts}" in ended.stderr
    assert not (project.folder / ".dvc/plots_page.html").exists()
    assert not os.path.exists(project.folder / ".dvc/config.local")
