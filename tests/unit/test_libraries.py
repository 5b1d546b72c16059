"""The versions that results follow from."""

from importlib.metadata import version
from pathlib import Path

import pytest

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.libraries import COMPUTING, DRAWING, EXPORTING, check_installed, pins
from tests.helpers import ROOT

FILE = ROOT / "requirements.txt"


def test_another_version_of_what_computes_changes_its_lines_and_no_other_package_does(tmp_path: Path) -> None:
    text, changed = FILE.read_text(), tmp_path / "requirements.txt"
    computing, drawing = pins(FILE, COMPUTING), pins(FILE, DRAWING)
    for name, others in (("torch", (False, True)), ("matplotlib", (True, False)), ("pytest", (True, True))):
        assert f"\n{name}==" in text
        changed.write_text(text.replace(f"\n{name}==", f"\n{name}==9."))
        assert (pins(changed, COMPUTING) == computing, pins(changed, DRAWING) == drawing) == others
    assert set(computing.splitlines()) <= set(text.splitlines())


@pytest.mark.parametrize(
    "content", [None, b"\xff", b"torch==1\n", b"numpy==1\ntorch=1\n"], ids=["none", "no text", "one", "no pin"]
)
def test_a_file_without_the_pins_is_refused_in_a_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "requirements.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=f"^{file}: [^\n]*$"):
        pins(file, ("numpy", "torch"))


def test_other_versions_than_the_pinned_are_refused_and_what_is_not_for_here_is_left(tmp_path: Path) -> None:
    file, numpy = tmp_path / "pins.txt", version("numpy")
    file.write_text(f"numpy=={numpy}\nnumpy==1.0 ; python_version < '3'\nnot-installed==1.0\n")
    check_installed(file)
    file.write_text("numpy==1.0\n")
    with pytest.raises(InputError, match=f"^numpy {numpy} .*==1.0"):
        check_installed(file)
    for name in (COMPUTING, DRAWING, EXPORTING):
        file.write_text(pins(FILE, name))
        check_installed(file)
