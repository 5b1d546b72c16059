"""requirements.txt holds exact versions within the ranges of pyproject.toml, and nothing else."""

import re

from packaging.requirements import Requirement

from tests.helpers import ROOT

PINS = [Requirement(line) for line in (ROOT / "requirements.txt").read_text().splitlines()]


def ranges() -> list[Requirement]:
    text = (ROOT / "pyproject.toml").read_text()
    blocks = re.findall(r"^(?:dependencies|dev|requires) = \[(.*?)\]$", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    return [Requirement(found) for block in blocks for found in re.findall(r'"([^"]+)"', re.sub(r"#.*", "", block))]


def test_every_line_is_one_exact_version() -> None:
    for pin in PINS:
        assert re.fullmatch(r"==[\w.+!]+", str(pin.specifier)), pin
        assert pin.url is None


def test_every_dependency_is_pinned_within_its_range() -> None:
    for wanted in ranges():
        versions = [str(pin.specifier).removeprefix("==") for pin in PINS if pin.name == wanted.name]
        assert versions, wanted
        assert all(wanted.specifier.contains(version) for version in versions), wanted
