"""What every test gets: one thread, and global random state and PyTorch's settings put back after it."""

import gc
import os

# What is loaded until all tests are collected stays. To look through it for what is not used any more, again and again,
# takes a tenth of the tests' time.
gc.disable()
# NumPy reads it when it is imported. Two threads for small matrices wait for each other more than they compute.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import random  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

# A slow machine is no fault: nothing is asserted of time.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# Git sets them for its hooks and for what it starts; tests' own repositories would be taken for this one.
for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"):
    os.environ.pop(name, None)


# Each has something that takes long to make, which its tests share: a browser, models, a measurement. One worker runs
# all of them. The marks of pytest-xdist 3.8 for that have no effect with pytest 9.2.
BY_ONE_WORKER = ("test_bench.py", "test_demo.py", "test_drawn_charts.py")


# Where the plugin is not installed, nobody asks.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class ByFileOrTest(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if Path(file).name in BY_ONE_WORKER else nodeid

    return ByFileOrTest(config, log)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests/unit/test_device.py computes: cpu, cuda or mps")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where to compute, as ``--device`` says."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def restored_state() -> Iterator[None]:
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    # Small tensors are computed several times faster by one thread than by two that wait for each other.
    torch.set_num_threads(1)
    yield
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(pytorch)
    torch.set_num_threads(threads)
    # To set it takes seconds, the first time.
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
