"""How a stage or a tool is called, and how it ends when something is wrong."""

import ast
import importlib
import inspect
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_cnn.common import cli
from mnist_cnn.common.errors import InputError
from mnist_cnn.common.platforms import vector_instructions
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


def test_help_says_what_the_stage_and_each_option_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def main(source: Path, count: int) -> None:
        """Count what is in a file.

        Not what is in ``folders``.

        Args:
            source: the file, of which
                100 % is read.
            count: how often.

        Raises:
            InputError: of no interest here.
        """

    monkeypatch.setattr(sys, "argv", ["stage", "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert not ended.value.code
    said = " ".join(capsys.readouterr().out.split())
    assert f"usage: python -m {__name__} " in said
    for part in ("Count what is in a file.", "Not what is in 'folders'.", "the file, of which 100 % is read."):
        assert said.count(part) == 1
    assert re.search(r"--source PATH the file.*--count NUMBER how often", said)
    assert "InputError" not in said and "Args" not in said


COMMANDS = [
    file.relative_to(ROOT).as_posix()
    for folder in ("stages", "tools", "benchmark")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if "\ndef main(" in file.read_text()
]


@pytest.mark.parametrize("file", COMMANDS)
def test_every_command_explains_itself_and_each_of_its_options(file: str) -> None:
    [main] = [node for node in ast.parse((ROOT / file).read_text()).body if getattr(node, "name", "") == "main"]
    assert isinstance(main, ast.FunctionDef)
    summary, _, arguments = cli.explained(ast.get_docstring(main) or "")
    assert summary
    assert list(arguments) == [argument.arg for argument in main.args.args]


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
    old = "    train: 55000\n    val: 5000\n"
    assert old in settings
    params.write_text(settings.replace(old, "    train: 0\n"))
    ended = subprocess.run(
        [sys.executable, "-m", "stages.split", "--params", params, "--raw", tmp_path, "--splits", tmp_path / "split"],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    first, second = ended.stderr.splitlines()
    assert first.startswith(f"error: {params}: split.mnist.train: 0 is not allowed: ")
    assert second == f"error: {params}: split.mnist.val: missing"
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


def test_a_stage_knows_nothing_of_a_users_own_settings_of_matplotlib(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"image.lut: 64\nfont.size: 30\nfigure.dpi: caf\xe9\n")
    environment = os.environ | {"MPLBACKEND": "unknown", "MPLCONFIGDIR": str(tmp_path)}
    program = "import stages, matplotlib as m; print(m.get_backend(), m.rcParams['image.lut'], m.rcParams['font.size'])"
    for own in ({}, {"MATPLOTLIBRC": str(tmp_path)}):
        command = [sys.executable, "-c", program]
        ended = subprocess.run(command, cwd=ROOT, env=environment | own, capture_output=True, text=True, check=True)
        assert (ended.stdout.strip(), ended.stderr) == ("agg 256 10.0", "")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors have other instructions")
def test_stages_compute_with_the_same_instructions_on_all_processors() -> None:
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}  # of the user's own, for other programs
    program = "import stages, torch; print(torch.backends.cpu.get_cpu_capability())"
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "AVX2"


@pytest.mark.parametrize(
    ("described", "expected"),
    [("flags : fma avx2\n", "avx2"), ("model : x\nflags : sse4_2\n", "default"), ("", "avx2"), (None, "avx2")],
)
def test_processors_that_are_known_to_lack_the_instructions_get_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, described: str | None, expected: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    if described is not None:
        (tmp_path / "cpuinfo").write_text(described)
    assert vector_instructions(str(tmp_path / "cpuinfo")) == expected
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert vector_instructions(str(tmp_path / "cpuinfo")) == ""


# ---- What is wrong outside the program


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "a/b.csv"), "a/b.csv: No space left on device"),
        (PermissionError(13, "Permission denied", "a", None, "b"), "a and b: Permission denied"),
        (IsADirectoryError(21, "Is a directory", "a"), "a: Is a directory"),
        (OSError("odd\nthing"), "odd thing"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_the_systems_errors_end_with_a_line_that_names_the_file(
    call: Callable[..., object], error: OSError, told: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(*OPTIONS, error=error)
    assert ended.value.code == f"error: {told}"


def program(code: str, **environment: str) -> subprocess.Popen[bytes]:
    """A program whose ``main`` is this code, with its output in a pipe."""
    text = f"import sys\nfrom mnist_cnn.common import cli, process\ndef main() -> None:\n    {code}\ncli.run(main)\n"
    pipe = subprocess.PIPE
    environment |= os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment
    return subprocess.Popen([sys.executable, "-c", text], env=environment, stdout=pipe, stderr=pipe)


def test_a_reader_that_stops_ends_the_program_without_a_word() -> None:
    with program("[print(number, flush=True) for number in range(100_000)]") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_program_works_without_a_terminal_to_write_to(tmp_path: Path, closed: str) -> None:
    code = "print(1); print(2, file=sys.stderr); open(sys.argv[0] + '.made', 'w').write('whole')"
    text = f"import sys\nfrom mnist_cnn.common import cli\ndef main() -> None:\n    {code}\ncli.run(main)\n"
    file = tmp_path / "program.py"
    file.write_text(text)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run(["sh", "-c", f'"$0" "$1" {closed}', sys.executable, file], env=environment)
    assert ended.returncode == 0 and (tmp_path / "program.py.made").read_text() == "whole"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("unable to mmap 9 bytes from file")])
def test_the_end_of_memory_is_told_in_a_line(call: Callable[..., object], error: Exception) -> None:
    with pytest.raises(SystemExit) as ended:
        call(*OPTIONS, error=error)
    assert str(ended.value.code).startswith("error: out of memory (")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_any_terminal_gets_what_it_can_show(encoding: str) -> None:
    process = program('print("├─ 1 ✓")', PYTHONIOENCODING=encoding)
    assert process.communicate() == (b"?? 1 ?\n", b"")
    assert process.returncode == 0


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_model_without_a_recipe_is_refused_in_a_line(stage: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"stages.{stage}")
    paths = {
        name: tmp_path / name for name in inspect.signature(module.main).parameters if name not in ("params", "model")
    }
    with pytest.raises(InputError, match="model_99.*model_1, model_2"):
        module.main(params=ROOT / "params.yaml", model="model_99", **paths)
    assert list(tmp_path.iterdir()) == []


# ---- Processes that end with the one that started them


def test_a_program_ends_when_the_one_it_works_for_is_killed() -> None:
    sleep = "import time; time.sleep(60)"
    with (
        subprocess.Popen([sys.executable, "-c", sleep]) as owner,
        program(
            f'process.end_with_owners(); print("started", flush=True); {sleep}', MNIST_CNN_OWNER=str(owner.pid)
        ) as worker,
    ):
        assert worker.stdout is not None and worker.stdout.readline() == b"started\n"
        owner.kill()
        # Not waited for: a process that nobody has asked about has ended, too.
        assert worker.wait(timeout=20) != 0
