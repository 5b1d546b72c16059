"""How many processors this process may use, which may be fewer than the machine has."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def usable_processors(process: Path = Path("/proc/self")) -> int:
    """The processors of this process's affinity, but no more than its container's quota allows; at least 1.

    A quota of one and a half processors counts as two. Where the system has neither, all processors count.

    Args:
        process: what Linux tells of this process. Sources: proc(5), cgroups(7); Linux's "Control Group v2", cpu.max.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    quotas = (_quota(folder) for folder in _control_groups(process))
    return max(1, math.ceil(min([allowed, *quotas])))


def _control_groups(process: Path) -> Iterator[Path]:
    """The folders of the groups that limit the process's time: its own and those above, of either version."""
    try:
        groups = (process / "cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (process / "mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    paths = {name: path for _, names, path in (line.split(":", 2) for line in groups) for name in names.split(",")}
    for line in mounts:
        where, _, kind = line.partition(" - ")
        root, mounted = where.split()[3:5]
        system, _, options = kind.split(" ", 2)
        # The second version has one tree for all, whose name is empty.
        name = {"cgroup": "cpu", "cgroup2": ""}.get(system)
        if name not in paths or (name and name not in options.split(",")):
            continue
        # A container may see its own group as the whole tree.
        below = paths[name].removeprefix(root.rstrip("/")).strip("/")
        folder = Path(mounted, below)
        yield from (folder, *list(folder.parents)[: len(Path(below).parts)])


def _quota(folder: Path) -> float:
    """How many processors' time a group may take; infinite where nothing is said."""
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf
