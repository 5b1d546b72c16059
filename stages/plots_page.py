"""The page of ``dvc plots show``, made to open without a network."""

import subprocess
from pathlib import Path

import vl_convert

from mnist_cnn.errors import InputError
from mnist_cnn.files import write_text
from stages import cli

_SCRIPTS = "{scripts}"


def main(page: Path, template: Path) -> None:
    """Put Vega's scripts into the page in place of the addresses that DVC has, and have DVC use it from now on.

    The scripts come from an installed package and stay out of Git, and so does DVC's setting: a clone in which this
    has not run has DVC's own page.
    """
    text = page.read_text(encoding="utf-8")
    if _SCRIPTS not in text:
        raise InputError(f"{page}: has no '{_SCRIPTS}' for the scripts' place")
    # As a script of its own, so that what defines the charts, later on the page, finds it loaded.
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed").replace("</script", "<\\/script")
    write_text(template, text.replace(_SCRIPTS, f"<script>\n{bundle}\n</script>"))
    subprocess.run(["dvc", "config", "--local", "plots.html_template", template.name], check=True)


if __name__ == "__main__":
    cli.run(main)
