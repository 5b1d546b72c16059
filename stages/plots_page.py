"""The page of ``dvc plots show``, made to open without a network."""

from pathlib import Path

import vl_convert
from configobj import ConfigObj, ConfigObjError

from mnist_cnn.errors import InputError
from mnist_cnn.files import whole_file, write_text
from stages import cli

_OFFLINE = "page.offline.html"


def main(dvc: Path) -> None:
    """Put the scripts that draw charts into the page, and name it in DVC's settings of this clone.

    Reads ``page.html`` in DVC's folder. Where those settings name another page, they are left as they are.
    """
    page = (dvc / "page.html").read_text(encoding="utf-8")
    # A module would come too late: the charts' own scripts call vegaEmbed as the page is read.
    script = vl_convert.javascript_bundle().replace("</script", r"<\/script")
    write_text(dvc / _OFFLINE, page.replace("{scripts}", f"<script>{script}</script>"))
    # Only now: DVC refuses to draw anything where the page that it is told of is missing.
    _use(dvc / "config.local", _OFFLINE)


def _use(path: Path, page: str) -> None:
    """Name the page in a settings file, which may hold more, passwords too."""
    try:
        config = ConfigObj(str(path), encoding="utf-8", interpolation=False)
    except ConfigObjError as error:
        raise InputError(f"{path}: {error}") from None
    plots = config.setdefault("plots", {})
    if "html_template" in plots:
        return
    plots["html_template"] = page
    with whole_file(path) as scratch:
        # As readable as it was, and no more.
        scratch.touch(path.stat().st_mode & 0o777 if path.exists() else 0o666)
        config.filename = str(scratch)
        config.write()


if __name__ == "__main__":
    cli.run(main)
