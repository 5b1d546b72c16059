"""requirements.txt has what each promised Python and platform needs, in exact versions that pyproject.toml allows."""

import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from mnist_cnn.common.platforms import EXCLUDED, MACHINES, NEWEST, OLDEST
from tests.helpers import ROOT

PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PINS = [Requirement(line) for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()]

# The variables of PEP 508 on the platforms that are promised.
SYSTEMS = {"Linux": ("linux", "posix"), "Darwin": ("darwin", "posix"), "Windows": ("win32", "nt")}
PLATFORMS = [
    {
        "platform_system": system,
        "sys_platform": name,
        "os_name": os,
        "platform_machine": machine,
        "platform_release": "",
    }
    for system, (name, os) in SYSTEMS.items()
    for machine in MACHINES[system]
]
CPYTHON = {"implementation_name": "cpython", "platform_python_implementation": "CPython", "platform_version": ""}
ENVIRONMENTS = [
    CPYTHON | platform | {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.9", "extra": ""}
    for minor in range(OLDEST[1], NEWEST[1] + 1)
    for platform in PLATFORMS
]


def ranges() -> list[Requirement]:
    blocks = re.findall(r"^(?:dependencies|dev|kernels|requires) = \[(.*?)\]$", PROJECT, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    return [Requirement(found) for block in blocks for found in re.findall(r'"([^"]+)"', re.sub(r"#.*", "", block))]


def promised() -> SpecifierSet:
    [found] = re.findall(r'^requires-python = "(.*)"$', PROJECT, re.MULTILINE)
    return SpecifierSet(found)


def version_of(pin: Requirement) -> str:
    return str(pin.specifier).removeprefix("==")


def is_for(requirement: Requirement, environment: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment)


@cache
def installed(name: str, version: str) -> tuple[SpecifierSet, list[Requirement]] | None:
    """What a package asks of Python and of others; None where another version of it is installed here, or none."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    if found.version.partition("+")[0] != version:
        return None
    pythons = SpecifierSet(str(found.metadata.json.get("requires_python", "")))
    return pythons, [Requirement(line) for line in found.requires or []]


def test_every_line_is_one_exact_version() -> None:
    for pin in PINS:
        assert re.fullmatch(r"==[\w.+!]+", str(pin.specifier)), pin
        assert pin.url is None


def test_the_promised_pythons_are_those_that_stages_and_set_up_allow() -> None:
    versions = {(3, minor, micro) for minor in range(20) for micro in range(30)}
    allowed = {version for version in versions if OLDEST <= version[:2] <= NEWEST and version != EXCLUDED}
    assert {version for version in versions if promised().contains(".".join(map(str, version)))} == allowed


def test_no_installed_pin_excludes_a_promised_python() -> None:
    versions = [f"3.{minor}.{micro}" for minor in range(OLDEST[1], NEWEST[1] + 1) for micro in range(30)]
    versions = [version for version in versions if promised().contains(version)]
    asked = {pin: known[0] for pin in PINS if (known := installed(pin.name, version_of(pin))) is not None}
    assert len(asked) > 100
    for pin, pythons in asked.items():
        excluded = {version.rpartition(".")[0] for version in versions if not pythons.contains(version)}
        concerned = [env for env in ENVIRONMENTS if env["python_version"] in excluded and is_for(pin, env)]
        assert concerned == [], f"{pin}: requires Python {pythons}"


def test_no_package_has_two_pins_anywhere_and_each_pin_is_for_some_place() -> None:
    counts = {pin: 0 for pin in PINS}
    for environment in ENVIRONMENTS:
        here = [pin for pin in PINS if is_for(pin, environment)]
        names = [pin.name for pin in here]
        assert len(names) == len(set(names)), environment
        for pin in here:
            counts[pin] += 1
    assert [str(pin) for pin, count in counts.items() if not count] == []


def needed(environment: dict[str, str], pins: dict[str, str]) -> Iterator[Requirement]:
    """What the project needs, and what that needs in turn, as far as it is installed here."""
    waiting, seen = [(requirement, "") for requirement in ranges()], set()
    while waiting:
        requirement, extra = waiting.pop()
        if not is_for(requirement, environment | {"extra": extra}):
            continue
        yield requirement
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            known = None if (name, wanted) in seen else installed(name, pins.get(name, ""))
            seen.add((name, wanted))
            waiting += [(other, wanted) for other in known[1]] if known else []


@pytest.mark.parametrize(
    "environment",
    ENVIRONMENTS,
    ids=lambda env: f"{env['python_version']} {env['sys_platform']} {env['platform_machine']}",
)
def test_every_place_has_a_fitting_pin_of_all_that_is_needed(environment: dict[str, str]) -> None:
    pins = {str(canonicalize_name(pin.name)): version_of(pin) for pin in PINS if is_for(pin, environment)}
    for wanted in needed(environment, pins):
        version = pins.get(canonicalize_name(wanted.name))
        assert version is not None and wanted.specifier.contains(version), wanted
