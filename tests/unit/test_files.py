"""A file is whole or not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_cnn.common.files import atomic_write, keep_only, write_text
from tests.helpers import ROOT


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("before", [{}, {"weights.bin": b"old"}], ids=["new", "old"])
def test_the_file_takes_its_place_when_the_block_ends_and_not_before(tmp_path: Path, before: dict[str, bytes]) -> None:
    path = tmp_path / "weights.bin"
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    with atomic_write(path) as temporary:
        # Beside the file, so that it can take its place at once; of the same kind, which some writers go by.
        assert (temporary.parent, temporary.suffix) == (path.parent, path.suffix)
        temporary.write_bytes(b"new")
        assert contents(tmp_path) == before | {temporary.name: b"new"}
    assert contents(tmp_path) == {"weights.bin": b"new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [{}, {"weights.bin": b"old"}], ids=["new", "old"])
def test_an_error_leaves_what_was_there_and_no_temporary_file(
    tmp_path: Path, before: dict[str, bytes], error: type[BaseException]
) -> None:
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error), atomic_write(tmp_path / "weights.bin") as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert contents(tmp_path) == before


def test_an_error_before_anything_is_written_is_the_one_that_is_seen(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "weights.bin"):
        raise ZeroDivisionError
    assert contents(tmp_path) == {}


def test_a_file_that_cannot_take_its_place_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "taken" / "by").mkdir(parents=True)
    with pytest.raises(OSError), atomic_write(tmp_path / "taken") as temporary:
        temporary.write_bytes(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_the_systems_error_names_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError) as told, atomic_write(tmp_path / "weights.bin"):
        raise OSError(28, "No space left on device")
    assert told.value.filename == str(tmp_path / "weights.bin")
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as told, atomic_write(tmp_path / "file/weights.bin"):
        pass
    assert told.value.filename == str(tmp_path / "file")


def test_others_are_removed_from_a_folder_of_results(tmp_path: Path) -> None:
    for name in ("a", "b", "c/d"):
        write_text(tmp_path / name, name)
    keep_only(tmp_path, ["a"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def test_parent_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "text")
    assert contents(tmp_path / "a" / "b") == {"c.txt": b"text"}


def test_text_has_unix_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "text.csv", "a,b\n1,2\n")
    assert contents(tmp_path) == {"text.csv": b"a,b\n1,2\n"}


def test_text_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from mnist_cnn.common.files import write_text;"
        "write_text(pathlib.Path(sys.argv[1]), '\\xb1\\u2192')"
    )
    ascii_locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment = os.environ | ascii_locale | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", program, tmp_path / "text"], env=environment, check=True)
    assert contents(tmp_path) == {"text": "±→".encode()}
