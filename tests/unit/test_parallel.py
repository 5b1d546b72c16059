"""Work in parallel: results, failures and progress come back, and no process is left behind."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess

import pytest

from mnist_cnn.study import parallel
from mnist_cnn.study.parallel import Done, Failed, Progress, run_parallel


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, even where the tests run in the background, whose shell has them ignore it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def work(task: str, say: Callable[[object], object]) -> str:
    say(f"{task} begins")
    if task == "raise":
        raise ValueError("of two\nlines")
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "wait":
        time.sleep(600)
    if task == "stay":
        threading.Thread(target=time.sleep, args=(600,)).start()
    return task.upper()


def outcome(tasks: list[str], jobs: int) -> dict[int, list[object]]:
    told: dict[int, list[object]] = {}
    for place, what in run_parallel(work, [(task,) for task in tasks], jobs, preload=["json"]):
        told.setdefault(place, []).append(what)
    return told


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_every_task_tells_its_progress_and_its_result(jobs: int) -> None:
    told = outcome(["a", "b", "c"], jobs)
    assert told == {place: [Progress(f"{task} begins"), Done(task.upper())] for place, task in enumerate("abc")}


@pytest.mark.parametrize(
    ("failing", "reason"),
    [("raise", "ValueError: of two lines"), ("die", "its process ended with status -9")],
)
def test_a_task_that_fails_is_told_of_and_leaves_the_others_alone(failing: str, reason: str) -> None:
    told = outcome(["a", failing, "b"], 2)
    assert told[1][-1] == Failed(reason)
    assert [told[0][-1], told[2][-1]] == [Done("A"), Done("B")]


def test_a_process_that_stays_when_its_task_is_done_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_PATIENCE_S", 0.1)
    assert outcome(["stay", "a"], 1) == {
        0: [Progress("stay begins"), Done("STAY")],
        1: [Progress("a begins"), Done("A")],
    }


def test_no_task_is_no_work() -> None:
    assert outcome([], 2) == {}


def test_no_more_than_the_jobs_run_at_a_time_and_none_when_nobody_listens_any_more() -> None:
    before = set(multiprocessing.active_children())
    running = run_parallel(work, [("wait",)] * 3, 2, preload=["json"])
    assert {next(running)[0], next(running)[0]} == {0, 1}
    children = set(multiprocessing.active_children()) - before
    assert len(children) == 2
    running.close()
    assert not any(child.is_alive() for child in children)


def test_an_interruption_waits_until_a_process_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = BaseProcess.start, []

    def interrupted(process: BaseProcess) -> None:
        signal.raise_signal(signal.SIGINT)
        start(process)
        started.append(process)

    monkeypatch.setattr(BaseProcess, "start", interrupted)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        next(run_parallel(work, [("wait",)], 1, preload=["json"]))
    [process] = started
    assert process.exitcode == -signal.SIGTERM
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_an_interruption_in_a_finalizer_is_not_lost() -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    before = set(multiprocessing.active_children())
    running = run_parallel(work, [("wait",)] * 2, 2, preload=["json"])
    next(running)
    children = set(multiprocessing.active_children()) - before
    Finalized()
    with pytest.raises(KeyboardInterrupt):
        for _ in running:
            pass
    assert children
    assert not any(child.is_alive() for child in children)


def test_an_interruption_is_not_lost_on_a_caller_who_stops_listening() -> None:
    running = run_parallel(work, [("wait",)], 1, preload=["json"])
    next(running)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        running.close()


def test_an_interruption_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running = run_parallel(work, [("a",), ("b",)], 1, preload=["json"])
    next(running)
    signal.raise_signal(signal.SIGINT)
    assert [told for _, told in running] == [Done("A"), Progress("b begins"), Done("B")]
