"""The set-up of the charts' page: what it writes, and what it leaves alone."""

from pathlib import Path

import pytest

from mnist_cnn.common.errors import InputError
from tools import plots_page

SETTINGS = """# where the data is
[core]
    remote = store
['remote "store"']
    url = https://example.invalid/%(store)s
    password = "a # b, ${c} = %"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page.html").write_text("<head>{scripts}</head>{plot_divs}\n")
    return tmp_path


def test_the_scripts_are_in_the_page_which_the_settings_name(folder: Path) -> None:
    plots_page.main(folder)
    page = (folder / "page.offline.html").read_text()
    assert page.startswith("<head><script>") and page.endswith("</script></head>{plot_divs}\n")
    assert page.count("</script") == 1
    assert "window.vegaEmbed" in page
    assert (folder / "config.local").read_text() == "[plots]\nhtml_template = page.offline.html\n"


def test_once_more_changes_nothing(folder: Path) -> None:
    plots_page.main(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    plots_page.main(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_other_settings_and_who_may_read_them_are_kept(folder: Path, mode: int) -> None:
    path = folder / "config.local"
    path.write_text(SETTINGS)
    path.chmod(mode)
    plots_page.main(folder)
    assert path.read_text() == SETTINGS + "[plots]\n    html_template = page.offline.html\n"
    assert path.stat().st_mode & 0o777 == mode


def test_a_page_that_the_user_has_named_is_kept(folder: Path) -> None:
    text = "[plots]\n    html_template = mine.html\n"
    (folder / "config.local").write_text(text)
    plots_page.main(folder)
    assert (folder / "config.local").read_text() == text


def test_settings_that_cannot_be_read_are_refused_and_left(folder: Path) -> None:
    (folder / "config.local").write_text("[plots\n")
    with pytest.raises(InputError, match=r"config\.local: .*line 1"):
        plots_page.main(folder)
    assert (folder / "config.local").read_text() == "[plots\n"


def test_without_the_page_nothing_is_written(folder: Path) -> None:
    (folder / "page.html").unlink()
    with pytest.raises(InputError, match=r"page\.html: cannot be read"):
        plots_page.main(folder)
    assert list(folder.iterdir()) == []
