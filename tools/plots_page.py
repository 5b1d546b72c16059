"""The page of ``dvc plots show``, made to open without a network."""

from pathlib import Path

import vl_convert
from configobj import ConfigObj, ConfigObjError

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import atomic_write, write_text

_OFFLINE = "page.offline.html"


def main(dvc: Path) -> None:
    """Put the scripts that draw charts into ``page.html`` of DVC's folder, and name the result in its settings.

    The result and the settings of this clone, ``config.local``, are left out of Git. Settings that name a page
    already are left as they are.

    Args:
        dvc: DVC's folder, .dvc.
    """
    try:
        page = (dvc / "page.html").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{dvc / 'page.html'}: cannot be read ({error})") from None
    # A classic script: a module would come after the charts, which call it as the page is read.
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", r"<\/script")
    write_text(dvc / _OFFLINE, page.replace("{scripts}", f"<script>{script}</script>"))
    # Only now: DVC draws nothing where the page that its settings name is missing.
    _name(dvc / "config.local", _OFFLINE)


def _name(path: Path, page: str) -> None:
    """Name the page in DVC's settings, which may hold more than that, passwords too."""
    try:
        settings = ConfigObj(str(path), encoding="utf-8", interpolation=False)
    except (ConfigObjError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    plots = settings.setdefault("plots", {})
    if "html_template" in plots:
        return
    plots["html_template"] = page
    with atomic_write(path) as temporary:
        # Readable for those who could read it before, and nobody else.
        temporary.touch(path.stat().st_mode & 0o777 if path.exists() else 0o666)
        settings.filename = str(temporary)
        settings.write()


if __name__ == "__main__":
    cli.run(main)
