"""Work in parallel processes, each of which may fail without the others."""

import multiprocessing
import signal
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

# Forked from a process that has loaded what the work needs, where the system can: seconds saved a task.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"

# For a process that has reported all, or was told to end, and has not ended yet.
_PATIENCE_S = 10


class Progress(NamedTuple):
    """How far a task is."""

    value: Any


class Done(NamedTuple):
    """A task ended with a result."""

    result: Any


class Failed(NamedTuple):
    """A task ended without a result; why, in one line."""

    reason: str


def run_parallel(
    work: Callable[..., Any], tasks: Sequence[tuple], jobs: int, preload: Sequence[str]
) -> Generator[tuple[int, Progress | Done | Failed], None, None]:
    """Run ``work(*task, say)`` for each task, up to ``jobs`` at a time, in processes of their own.

    Yields what the tasks tell, as they tell it, with the task's place in ``tasks``: what they pass to ``say``, and
    at the end of each its result, or how it failed: by an exception, or by the end of its process. To be closed, by
    ``contextlib.closing``, where the caller may stop listening before the end: all processes are ended then. When
    Ctrl-C or SIGTERM has come and the caller asks for more, they are ended too, and then the signal's own handler is
    called: one that raises nothing lets the iteration end early. To be called in the main thread.

    Args:
        work: a function that can be pickled.
        preload: modules to load once for all processes. Installed ones: this project's own might come from another
            copy, because the process that loads them does not know this one's path.
    """
    context: Any = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(list(preload))
    waiting = deque(enumerate(tasks))
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    with _interruption() as (alarm, came):
        try:
            while (waiting or running) and not came:
                while waiting and len(running) < jobs:
                    place, task = waiting.popleft()
                    mine, theirs = context.Pipe(duplex=False)
                    process = context.Process(target=_worker, args=(work, task, theirs), daemon=True)
                    process.start()
                    running[mine] = place, process
                    theirs.close()
                for ready in wait([*running, alarm]):
                    if ready is alarm:
                        alarm.recv(4096)
                        continue
                    pipe: Any = ready
                    place, process = running[pipe]
                    try:
                        message: Progress | Done | Failed = pipe.recv()
                    except (EOFError, OSError):  # its process has ended, perhaps in the middle of a message
                        message = Failed(f"its process ended with status {_end(process)}")
                    if not isinstance(message, Progress):
                        del running[pipe]
                        pipe.close()
                        _end(process)
                    yield place, message
        finally:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                _end(process)


def _end(process: BaseProcess) -> int | None:
    """Wait until a process has ended, and end it if it does not; returns its exit status."""
    process.join(_PATIENCE_S)
    process.kill()
    process.join()
    return process.exitcode


@contextmanager
def _interruption() -> Iterator[tuple[socket.socket, list[int]]]:
    """A socket that can be read from when a signal has come, and which of SIGINT and SIGTERM have.

    What they do waits until the end: an exception that a handler raises comes wherever Python is just then. That may be
    in the start of a process, which would be known to nobody and complain of the one that asked for it, or in a
    finalizer, where exceptions are lost and the work would go on.
    """
    came: list[int] = []
    handlers: dict[signal.Signals, Any] = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    reader, writer = socket.socketpair()
    with closing(reader), closing(writer):
        writer.setblocking(False)
        others = -1
        try:
            # A handler alone does not end a wait: Python goes on waiting after it.
            others = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            for number in handlers:
                signal.signal(number, lambda number, _: came.append(number))
            yield reader, came
        finally:
            signal.set_wakeup_fd(others)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for late in came:
                signal.raise_signal(late)


def _worker(work: Callable[..., Any], task: tuple, pipe: Connection) -> None:
    # Ctrl-C comes to all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(BrokenPipeError):
        try:
            message: Done | Failed = Done(work(*task, lambda value: pipe.send(Progress(value))))
        except Exception as error:
            message = Failed(" ".join(f"{type(error).__name__}: {error}".split()))
        pipe.send(message)
