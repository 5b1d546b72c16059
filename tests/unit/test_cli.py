"""How a stage or a tool is called, and how it ends when something is wrong."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from tests.helpers import ROOT

OPTIONS = ("--source", "a/b.csv", "--model-name", "5", "--count", "5")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, object]]]:
    """Runs a stage with options; returns how its ``main`` was called."""

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
        ((), "--source, --model-name, --count"),
        ((*OPTIONS, "--other", "1"), "--other"),
        ((*OPTIONS, "more"), "more"),
        ((*OPTIONS[:5], "many"), "--count: invalid int value: 'many'"),
        (OPTIONS[:5], "--count: expected one argument"),
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


def test_a_real_stage_refuses_bad_settings_in_a_line_each_and_writes_nothing(tmp_path: Path) -> None:
    params, settings = tmp_path / "params.yaml", (ROOT / "params.yaml").read_text()
    old = "  train: 55000\n  val: 5000\n"
    assert old in settings
    params.write_text(settings.replace(old, "  train: 0\n"))
    ended = subprocess.run(
        [sys.executable, "-m", "stages.split", "--params", params, "--raw", tmp_path, "--splits", tmp_path / "split"],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    first, second = ended.stderr.splitlines()
    assert first.startswith(f"error: {params}: split.train: 0 is not allowed: ")
    assert second == f"error: {params}: split.val: missing"
    assert list(tmp_path.iterdir()) == [params]


@pytest.mark.parametrize("package", ["stages", "tools", "benchmark"])
def test_a_checkout_uses_its_own_library_in_another_ones_environment(tmp_path: Path, package: str) -> None:
    for folder in (package, "src/mnist_cnn"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(ROOT / folder / "__init__.py", tmp_path / folder)
    shutil.copytree(ROOT / "src/mnist_cnn/common", tmp_path / "src/mnist_cnn/common")
    program = f"import {package}, mnist_cnn; print(mnist_cnn.__file__)"
    # The environment has this checkout installed.
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(ended.stdout.strip()) == tmp_path / "src/mnist_cnn/__init__.py"


def test_a_stage_starts_whatever_window_matplotlib_is_to_open(tmp_path: Path) -> None:
    environment = os.environ | {"MPLBACKEND": "unknown", "MPLCONFIGDIR": str(tmp_path)}
    command = [sys.executable, "-c", "import stages, matplotlib; print(matplotlib.get_backend())"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "agg"


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors have other instructions")
def test_stages_compute_with_the_same_instructions_on_all_processors() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    program = "import stages, torch; print(torch.backends.cpu.get_cpu_capability())"
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "AVX2"
