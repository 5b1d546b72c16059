"""Device, threads, determinism and the allocator of a process."""

import ctypes
import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from mnist_cnn.common.errors import InputError
from mnist_cnn.engine.device import keep_freed_memory, prepare, resolve_device
from mnist_cnn.engine.execution import ExecutionConfig
from mnist_cnn.settings.params import Train
from tests.helpers import CPU

TRAIN = Train(seed=1, device="cpu", engine="native", precision="float32")

# In order: M_MMAP_MAX to none, M_TRIM_THRESHOLD and M_TOP_PAD to much.
OPTIONS = [(-4, 0), (-1, 2**31 - 1), (-2, 2**29)]


@pytest.fixture(autouse=True)
def restored_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")


@pytest.fixture
def options_set(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What mallopt is called with, in place of calling it."""
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=lambda *call: calls.append(call)))
    return calls


def machine_with(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("name", "cuda", "mps", "device"),
    [
        ("auto", True, True, "cuda"),
        ("auto", True, False, "cuda"),
        ("auto", False, True, "mps"),
        ("auto", False, False, "cpu"),
        ("cpu", True, True, "cpu"),
        ("cuda", True, True, "cuda"),
        ("mps", True, True, "mps"),
    ],
)
def test_a_device_is_the_one_named_or_the_best_there_is(
    monkeypatch: pytest.MonkeyPatch, name: str, cuda: bool, mps: bool, device: str
) -> None:
    machine_with(monkeypatch, cuda, mps)
    assert resolve_device(name) == torch.device(device)


@pytest.mark.parametrize(
    ("name", "cuda", "mps", "available"),
    [
        ("cuda", False, False, "cpu"),
        ("cuda", False, True, "mps, cpu"),
        ("mps", True, False, "cuda, cpu"),
    ],
)
def test_an_absent_device_is_refused_and_those_there_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, cuda: bool, mps: bool, available: str
) -> None:
    machine_with(monkeypatch, cuda, mps)
    with pytest.raises(InputError, match=f"^train.device: '{name}' .* available: {available}$"):
        resolve_device(name)


@pytest.mark.parametrize("threads", [1, 2])
def test_prepare_sets_determinism_and_the_allocator_and_leaves_the_threads_to_the_kernels(
    options_set: list[tuple[int, int]], threads: int
) -> None:
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    assert prepare(TRAIN) == ExecutionConfig(CPU, "native", "float32", threads)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    assert options_set == OPTIONS


@pytest.mark.usefixtures("options_set")
def test_prepare_gives_cublas_a_workspace_of_fixed_size_unless_the_user_did(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(TRAIN)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    prepare(TRAIN)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.usefixtures("options_set")
def test_convolutions_on_cuda_are_of_float32_and_the_settings_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(monkeypatch, cuda=True, mps=False)
    convolutions = SimpleNamespace(fp32_precision="tf32")
    monkeypatch.setattr(torch.backends.cudnn, "conv", convolutions)
    threads = torch.get_num_threads()
    execution = prepare(Train(seed=1, device="auto", engine="torch", precision="bfloat16"))
    assert execution == ExecutionConfig(torch.device("cuda"), "torch", "bfloat16", threads)
    assert convolutions.fp32_precision == "ieee"


def raises(error: type[Exception]) -> Callable[[object], object]:
    def load(_: object) -> object:
        raise error

    return load


@pytest.mark.parametrize(
    "load",
    [lambda _: SimpleNamespace(), raises(OSError), raises(TypeError)],
    ids=["no mallopt", "no library", "no way to name it"],
)
def test_nothing_is_done_where_the_c_library_is_another(
    monkeypatch: pytest.MonkeyPatch, load: Callable[[object], object]
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", load)
    keep_freed_memory()
