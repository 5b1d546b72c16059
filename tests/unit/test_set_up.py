"""Where the project may be set up, and what is installed there."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnist_cnn.common.platforms import MACHINES, NEWEST, OLDEST, refusal
from tests.helpers import ROOT
from tools import wheels

PINS = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()

Version = namedtuple("Version", "major minor micro releaselevel serial")
Place = Callable[..., str]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Place:
    """What is said on another machine, or by another Python."""

    def said(
        system: str = "Linux",
        machine: str = "x86_64",
        library: str = "glibc 2.36",
        macos: str = "",
        python: tuple[int, int, int] = (3, 12, 1),
        **interpreter: Any,  # noqa: ANN401
    ) -> str:
        monkeypatch.setattr(platform, "system", lambda: system)
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(platform, "mac_ver", lambda: (macos, ("", "", ""), ""))
        monkeypatch.setattr(os, "confstr", lambda _: library, raising=False)
        monkeypatch.setattr(sys, "version_info", Version(*python, "final", 0))
        for name, value in interpreter.items():
            monkeypatch.setattr(sys, name, value)
        return refusal()

    return said


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"machine": "aarch64", "library": "glibc 2.28"},
        {"system": "Darwin", "machine": "arm64", "macos": "14.0"},
        {"system": "Darwin", "machine": "arm64", "macos": "26.1"},
        {"system": "Windows", "machine": "AMD64"},
        {"python": (3, 10, 0)},
        {"python": (3, 14, 2)},
    ],
)
def test_a_promised_place_is_not_refused(at: Place, place: dict[str, Any]) -> None:
    assert at(**place) == ""


@pytest.mark.parametrize(
    ("place", "found", "allowed"),
    [
        ({"python": (3, 9, 18)}, "", "3.10 to 3.14"),
        ({"python": (3, 15, 0)}, "", "3.10 to 3.14"),
        ({"python": (3, 14, 1)}, "", "without 3.14.1"),
        ({"implementation": type("PyPy", (), {"name": "pypy"})}, "", "CPython"),
        ({"machine": "riscv64"}, "riscv64", "x86_64, aarch64"),
        ({"maxsize": (1 << 31) - 1}, "32 bits", "64 bits"),
        ({"library": "glibc 2.17"}, "glibc 2.17", "2.28"),
        ({"library": ""}, "glibc", "2.28"),
        ({"system": "Darwin", "machine": "x86_64", "macos": "14.0"}, "x86_64", "arm64"),
        ({"system": "Darwin", "machine": "arm64", "macos": "13.6.1"}, "macOS 13.6.1", "14"),
        ({"system": "FreeBSD", "machine": "amd64"}, "FreeBSD", "Linux"),
    ],
)
def test_another_place_is_refused_by_its_name_with_what_is_allowed(
    at: Place, place: dict[str, Any], found: str, allowed: str
) -> None:
    said = at(**place)
    assert "\n" not in said
    assert found in said.split("; allowed")[0] and allowed in said.split("; allowed")[1]


def test_a_stage_refuses_a_place_before_it_loads_anything(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import platform\nplatform.machine = lambda: 'abacus'\n")
    # Without the installed packages.
    command = [sys.executable, "-S", "-c", "import sitecustomize, stages.train"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: ") and "abacus" in line


# ---- make setup


PYTHON = """#!/bin/sh
case "$*" in
"-m mnist_cnn.common.platforms") exec "$REAL" "$@" ;;
"-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
"-c import torch") exit "$TORCH_FAILS" ;;
*"pip install "*) echo "$*" >>pip.txt; for last; do :; done; [ ! -f "$last" ] || cp "$last" "$(wc -l <pip.txt).txt" ;;
*) exit 9 ;;
esac
"""


@pytest.fixture
def set_up(tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Runs make's set-up where nothing is installed; returns the lines of the requirements that pip was given."""
    shutil.copytree(ROOT / "src/mnist_cnn/common", tmp_path / "src/mnist_cnn/common")
    for name in ("Makefile", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)

    def ran(*options: str, torch_fails: bool = False) -> list[list[str]]:
        environment = os.environ | {"REAL": sys.executable, "TORCH_FAILS": str(int(torch_fails))}
        command = ["make", ".venv/ready", f"PYTHON={tmp_path}/python", *options]
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
        calls = (tmp_path / "pip.txt").read_text().splitlines()
        (tmp_path / "pip.txt").unlink()
        *pinned, own = calls
        assert own.endswith("--editable .[kernels]")
        # What is not resolved has to be whole.
        assert all(("--no-deps" in call) == bool(options) for call in pinned)
        return [(tmp_path / f"{number}.txt").read_text().splitlines() for number in range(1, len(calls))]

    return ran


def test_all_is_installed_as_pinned(set_up: Callable[..., list[list[str]]]) -> None:
    assert set_up() == [PINS]


def test_a_machine_without_a_gpu_does_without_cuda(set_up: Callable[..., list[list[str]]]) -> None:
    [installed] = set_up("CPU=1")
    left_out = set(PINS) - set(installed)
    assert left_out and all(pin.startswith(("nvidia-", "cuda-", "triton==")) for pin in left_out)
    assert not any("nvidia" in pin or "cuda" in pin for pin in installed)


def test_a_pytorch_that_does_not_start_without_cudas_libraries_gets_them(
    set_up: Callable[..., list[list[str]]],
) -> None:
    installed = [pin for pins in set_up("CPU=1", torch_fails=True) for pin in pins]
    assert {pin.split("==")[0] for pin in set(PINS) - set(installed)} == {
        "cuda-bindings", "cuda-pathfinder", "cuda-toolkit", "triton"
    }  # fmt: skip
    assert len(installed) == len(set(installed))


@pytest.mark.parametrize(
    ("there", "option", "refused"),
    [
        ([], "CPU=0", False),
        ([], "CPU=yes", True),
        (["ready"], "CPU=0", False),
        (["ready"], "CPU=1", True),
        (["ready", "cpu"], "CPU=0", True),
        (["ready", "cpu"], "CPU=1", False),
        (["ready", "cpu"], "JOBS=1", False),
        # A set-up that was interrupted.
        (["cpu"], "CPU=0", False),
    ],
)
def test_a_choice_that_would_do_nothing_is_refused(
    tmp_path: Path, there: list[str], option: str, refused: bool
) -> None:
    (tmp_path / ".venv").mkdir()
    for name in there:
        (tmp_path / ".venv" / name).touch()
    command = ["make", "--dry-run", f"--file={ROOT}/Makefile", "help", option]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert ended.returncode == (2 if refused else 0)
    assert [option.partition("=")[2] in line for line in ended.stderr.splitlines()] == [True] * refused


def test_a_systems_own_variable_of_that_name_is_none_of_ours() -> None:
    command = ["make", "--dry-run", "help"]
    assert subprocess.run(command, cwd=ROOT, env=os.environ | {"CPU": "x86_64"}, capture_output=True).returncode == 0


def test_pip_prefers_a_build_for_cpus_alone_where_it_finds_one(tmp_path: Path) -> None:
    for version in ("2.15.0", "2.15.0+cpu"):
        with zipfile.ZipFile(tmp_path / f"torch-{version}-py3-none-any.whl", "w") as wheel:
            folder = f"torch-{version}.dist-info"
            wheel.writestr(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
            wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{folder}/RECORD", "")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--isolated", "download", "--no-deps"]
    options = ["--no-index", "--find-links", str(tmp_path), "--dest", str(tmp_path / "chosen"), "torch==2.15.0"]
    subprocess.run([*pip, *options], check=True, capture_output=True)
    assert [file.name for file in (tmp_path / "chosen").iterdir()] == ["torch-2.15.0+cpu-py3-none-any.whl"]


# ---- make lock


def test_a_package_without_a_wheel_is_named_with_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\ncase "$*" in *3.12*windows*) grep b==2 >&2; exit 1 ;; esac\n! grep -q wsgidav\n')
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    pins = tmp_path / "requirements.txt"
    pins.write_text("a==1\nb==2\nwsgidav==4.4.0\n")
    with pytest.raises(SystemExit) as ended:
        wheels.main(pins)
    assert ended.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == ["bad  Python 3.12, x86_64-pc-windows-msvc: b==2"]
    assert len(lines) == (NEWEST[1] - OLDEST[1] + 1) * sum(map(len, MACHINES.values()))
