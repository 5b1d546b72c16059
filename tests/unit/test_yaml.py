"""YAML as DVC reads it: what is recorded is what a stage computes with."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.exceptions import DvcException
from dvc.utils.serialize import load_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.yaml import read_yaml
from mnist_cnn.settings.params import load
from tests.helpers import ROOT

# What YAML 1.1 reads otherwise, and what breaks a file.
SCALARS = [
    *("010", "0o10", "1:30", "190:20:30", "no", "yes", "on", "Off", "y", "1_000", "1e3", "1.e3", ".5", "+1", "0x1f"),
    *(
        "0b11",
        "~",
        "null",
        "NULL",
        ".inf",
        "-.Inf",
        ".nan",
        "2024-01-01",
        "2024-13-45",
        "2024-01-01 25:00:00",
        "=",
        "<<",
    ),
    *(
        "!!int '7'",
        "!!float x",
        "!!python/name:os.system",
        "!own 1",
        "&a [*a]",
        "*b",
        "[1",
        "{a: 1, a: 2}",
        "'",
        '"\\x"',
    ),
    *(
        "0.1",
        "99.4",
        "true",
        "True",
        "auto",
        "-0",
        "1.0",
        "12345678901234567890",
        "1e999",
        "a: b",
        "- 1",
        "%",
        "@",
    ),
]
CASES = 200


def read_both(file: Path) -> tuple[Any, Any]:
    """What this project and DVC read, or that they refuse it."""
    try:
        ours = read_yaml(file)
    except InputError as error:
        assert str(error).startswith(f"{file}: ") and len(str(error).splitlines()) == 1
        ours = InputError
    try:
        theirs = load_yaml(str(file))
    # DVC lets through what ruamel.yaml raises beside its own errors.
    except (DvcException, ValueError, TypeError, AttributeError, RecursionError):
        theirs = InputError
    return ours, theirs


@pytest.mark.parametrize("scalar", SCALARS)
def test_it_reads_what_dvc_reads_and_refuses_what_dvc_refuses(tmp_path: Path, scalar: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(f"model: {scalar}\nsplit: {{seed: 1}}\n")
    ours, theirs = read_both(file)
    assert repr(ours) == repr(theirs)


# What DVC's two parsers read differently: with that in Python, which is also the one that changes settings for 'dvc exp
# run -S', DVC would record something else than with that in C.
@pytest.mark.parametrize("text", ["%YAML 1.1\n---\na: 0100\n", "a: !\n", "a:\t1\n", "a: \u2028true: x\n", "b: {a:1}\n"])
def test_what_dvcs_two_parsers_read_differently_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    assert read_both(file)[0] is InputError


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 100_000, "{a: " * 100_000])
def test_what_is_nested_too_deep_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=f"^{file}: [^\n]*$"):
        read_yaml(file)


def small_settings() -> list[str]:
    """The lines of the settings with one model, without comments: what takes long to read again and again."""
    params = read_yaml(ROOT / "params.yaml")
    params |= {"model": "model_3", "models": {"model_3": params["models"]["model_3"]}}
    return yaml.safe_dump(params, sort_keys=False).splitlines()


LINES = small_settings()


@settings(max_examples=CASES)
@given(st.data())
def test_whatever_the_settings_are_they_are_loaded_or_refused_in_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file, lines = tmp_path_factory.getbasetemp() / "fuzzed.yaml", LINES.copy()
    place = data.draw(st.integers(0, len(lines) - 1))
    name = data.draw(st.sampled_from([f"{lines[place].partition(':')[0]}: ", f"  {lines[place]}", ""]))
    value = data.draw(st.sampled_from(SCALARS) | st.floats().map(str) | st.integers().map(str) | st.text(max_size=8))
    lines[place] = name + value
    file.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    try:
        load(file)
    except InputError as error:
        assert all(line.startswith(f"{file}: ") for line in str(error).splitlines())
