"""Data that is damaged in DVC's cache, with the real dvc: it is not used, and the message says how to get it back."""

import re
import shutil
from pathlib import Path

from tests.pipeline.conftest import small_copy


def flip(path: Path) -> None:
    """Change a byte as a failing disk does, without a word to DVC."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def test_a_byte_flipped_in_the_cache_is_told_and_the_way_back_works(tmp_path: Path, mirror: Path) -> None:
    project = small_copy(tmp_path / "project", mirror)
    project.run("git", "init", "--quiet")
    assert project.repro("split") == ["settings", "download", "split"]
    raw, cache = project.folder / "data/raw", project.folder / ".dvc/cache"
    intact = {path.name: path.read_bytes() for path in (raw / "MNIST/raw").iterdir()}
    splits = {path.name: path.read_bytes() for path in (project.folder / "data/split").iterdir()}
    name = "t10k-images-idx3-ubyte"
    [copy] = [path for path in cache.rglob("*") if path.is_file() and path.read_bytes() == intact[name]]
    flip(copy)
    shutil.rmtree(raw)
    project.dvc("checkout", "data/raw")
    # DVC has noticed nothing.
    assert (raw / "MNIST/raw" / name).read_bytes() != intact[name]
    project.edit_params(lambda params: params["split"]["mnist"].update(method="stratified"))

    ended = project.dvc("repro", "split", check=False)
    assert ended.returncode != 0 and "Traceback" not in ended.stderr
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert name in line

    [damaged], [command] = re.findall(r"files/md5/\S+", line), re.findall(r"'dvc (.*?)'", line)
    assert cache / damaged == copy
    copy.unlink()
    project.dvc(*command.split())
    project.edit_params(lambda params: params["split"]["mnist"].update(method="last"))
    project.repro("split")
    shutil.rmtree(raw)
    project.dvc("checkout", "data/raw")
    assert {path.name: path.read_bytes() for path in (raw / "MNIST/raw").iterdir()} == intact
    assert {path.name: path.read_bytes() for path in (project.folder / "data/split").iterdir()} == splits
