"""How a stage is called, and how it ends when something is wrong."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mnist_cnn.common.errors import InputError
from mnist_cnn.common import cli, show

ROOT = Path(__file__).parents[2]
OPTIONS = ("--source", "a/b.csv", "--model_name", "5", "--count", "5")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, object]]]:
    """Runs a stage with options; tells how its ``main`` was called."""

    def called(*options: str, error: BaseException | None = None) -> list[dict[str, object]]:
        calls: list[dict[str, object]] = []

        def main(source: Path, model_name: str, count: int) -> None:
            """Count what is in a file."""
            calls.append({"source": source, "model_name": model_name, "count": count})
            if error:
                raise error

        monkeypatch.setattr(sys, "argv", ["stage", *options])
        cli.run(main)
        return calls

    return called


def test_options_arrive_with_their_types(call: Callable[..., list[dict[str, object]]]) -> None:
    assert call(*OPTIONS) == [{"source": Path("a/b.csv"), "model_name": "5", "count": 5}]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (OPTIONS[:4], "--count"),
        (OPTIONS[2:], "--source"),
        ((), "--source, --model_name, --count"),
        ((*OPTIONS, "--other", "1"), "--other"),
        ((*OPTIONS, "more"), "more"),
        ((*OPTIONS[:5], "many"), "argument --count: invalid int value: 'many'"),
        ((*OPTIONS[:5], "1.5"), "argument --count: invalid int value: '1.5'"),
        (OPTIONS[:5], "argument --count: expected one argument"),
        ((*OPTIONS[:4], "--cou", "5"), "--count"),
    ],
)
def test_a_wrong_call_is_refused_by_the_options_name(
    call: Callable[..., object], capsys: pytest.CaptureFixture[str], options: tuple[str, ...], named: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(*options, error=AssertionError("called all the same"))
    assert ended.value.code == 2
    usage, fault = capsys.readouterr().err.split("error: ")
    assert usage.startswith(f"usage: python -m {__name__}")
    assert named in fault


def test_help_says_what_the_stage_does(call: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call("--help")
    assert not ended.value.code
    assert "Count what is in a file." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("message", "lines"),
    [("a.yaml: missing", "error: a.yaml: missing"), ("a: one\na: two", "error: a: one\nerror: a: two")],
)
def test_an_input_error_ends_with_its_lines_and_nothing_else(
    call: Callable[..., object], message: str, lines: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(*OPTIONS, error=InputError(message))
    # Python writes a text to standard error and ends with status 1.
    assert ended.value.code == lines


def test_an_interrupt_ends_with_the_status_that_a_shell_expects(call: Callable[..., object]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(*OPTIONS, error=KeyboardInterrupt())
    assert ended.value.code == 130


def test_a_fault_of_the_program_keeps_its_traceback(call: Callable[..., object]) -> None:
    with pytest.raises(ZeroDivisionError):
        call(*OPTIONS, error=ZeroDivisionError())


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        ("  train: 55000\n", "  train: 0\n", ["split.train: 0 is not allowed: "]),
        ("  train: 55000\n  val: 5000\n", "  train: 0\n", ["split.train: 0 is not allowed: ", "split.val: missing"]),
    ],
    ids=["one fault", "two faults"],
)
def test_a_real_stage_tells_of_bad_settings_in_a_line_each_and_writes_nothing(
    tmp_path: Path, old: str, new: str, faults: list[str]
) -> None:
    params, settings = tmp_path / "params.yaml", (ROOT / "params.yaml").read_text()
    assert old in settings
    params.write_text(settings.replace(old, new))
    ended = subprocess.run(
        [sys.executable, "-m", "stages.split", "--params", params, "--raw", tmp_path, "--splits", tmp_path / "parts"],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == len(faults)
    for line, fault in zip(lines, faults, strict=True):
        assert line.startswith(f"error: {params}: {fault}")
    assert list(tmp_path.iterdir()) == [params]


def test_show_prints_every_model_and_where_the_rest_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame(
        {
            "model": ["model_1", "model_5"],
            "parameters": [28_954, 7_778],
            "epochs": 15,
            "train_accuracy": [99.6912, 98.75],
            "val_accuracy": [99.1, 99.2],
            "test_accuracy": [99.05, 99.444],
            "generalization_gap": [0.64, -0.69],
            "meets_accuracy_target": [False, True],
            "meets_epochs_target": [True, True],
            "meets_parameters_target": [False, True],
            "test_accuracy_low": [98.84, 99.27],
            "test_accuracy_high": [99.22, 99.57],
            "reference_test_accuracy": [99.05, None],
        }
    )
    table.to_csv(tmp_path / "numbers.csv", index=False)
    show.main(tmp_path / "numbers.csv", tmp_path / "pictures")
    _, first, second, _, *where = capsys.readouterr().out.splitlines()
    assert first.split() == "model_1 28,954 99.69 99.10 99.05 98.84 99.22 0.64 99.05 1 of 3".split()
    assert second.split() == "model_5 7,778 98.75 99.20 99.44 99.27 99.57 -0.69 - 3 of 3".split()
    assert where[0].endswith(str(tmp_path / "numbers.md"))
    assert str(tmp_path / "pictures") in where[1]
