"""How many processors there are to compute on: those of the affinity, and a container's share."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_cnn.common.processors import usable_processors
from tests.helpers import ROOT

MOUNTS = """24 1 8:1 / / rw - ext4 /dev/sda rw
30 24 0:26 {root} {folder}/both rw shared:4 - cgroup2 cgroup2 rw
31 24 0:27 {root} {folder}/memory rw - cgroup cgroup rw,memory
32 24 0:28 {root} {folder}/cpu rw - cgroup cgroup rw,cpu,cpuacct
"""


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def told(folder: Path, groups: str, files: dict[str, str], root: str = "/") -> int:
    """The answer where a process is in these groups, and the groups' trees have these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "cgroup").write_text(groups)
    (folder / "mountinfo").write_text(MOUNTS.format(root=root, folder=folder))
    return usable_processors(folder)


@pytest.mark.parametrize(
    ("groups", "files", "count"),
    [
        ("0::/a/b\n", {"both/a/b/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"both/a/b/cpu.max": "max 100000\n", "both/a/cpu.max": "300000 100000\n"}, 3),
        ("0::/a\n", {"both/a/cpu.max": "150000 100000\n"}, 2),
        ("0::/a\n", {"both/a/cpu.max": "10000 100000\n"}, 1),
        ("0::/a\n", {"both/a/cpu.max": "9900000 100000\n"}, 8),
        ("0::/a\n", {"both/other/cpu.max": "100000 100000\n"}, 8),
        ("5:memory:/\n4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "10000"}, 5),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 8),
        ("4:cpu,cpuacct:/a\n0::/\n", {"cpu/cpu.cfs_quota_us": "4", "cpu/cpu.cfs_period_us": "1"}, 4),
    ],
)
def test_a_containers_share_counts(tmp_path: Path, groups: str, files: dict[str, str], count: int) -> None:
    assert told(tmp_path, groups, files) == count


def test_a_container_that_sees_its_own_group_as_the_whole_tree_is_limited_by_it(tmp_path: Path) -> None:
    assert told(tmp_path, "0::/engine/id\n", {"both/cpu.max": "200000 100000\n"}, root="/engine/id") == 2


def test_where_the_system_tells_nothing_all_processors_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_processors(tmp_path) == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_processors(tmp_path) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system ties no process to processors")
def test_make_counts_the_processors_that_a_process_is_tied_to() -> None:
    program = "import os, sys; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    program += "os.execv(sys.executable, [sys.executable, '-m', 'tools.processors'])"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "1\n"


def test_nothing_else_counts_processors() -> None:
    folders = ("src", "stages", "tools", "benchmark")
    files = [ROOT / "Makefile", *(file for folder in folders for file in (ROOT / folder).rglob("*.py"))]
    counting = {file.name for file in files if re.search("cpu_count|getaffinity|NPROC|nproc", file.read_text("utf-8"))}
    assert counting == {"processors.py"}
