"""Work in processes side by side, each of which may fail without the others."""

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

_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)


class Progress(NamedTuple):
    """A task told how far it is."""

    value: Any


class Done(NamedTuple):
    """A task ended with a result."""

    result: Any


class Failed(NamedTuple):
    """A task ended without a result; why, in one line."""

    reason: str


def side_by_side(
    work: Callable[..., Any], tasks: Sequence[tuple], jobs: int, preload: Sequence[str]
) -> Generator[tuple[int, Progress | Done | Failed], None, None]:
    """Run ``work(*task, say)`` for each task, up to ``jobs`` at a time, in processes of their own.

    Yields what the tasks tell, as they tell it, with the task's place in ``tasks``: what they pass to ``say``, and
    at the end of each its result, or how it failed: by an exception, or by the end of its process. When the caller
    stops listening, by an exception too, all processes are ended. Ctrl-C and SIGTERM do the same, and only then what
    they did before. To be called in the main thread.

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
    with _interruption() as interruption:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    place, task = waiting.popleft()
                    mine, theirs = context.Pipe(duplex=False)
                    process = context.Process(target=_worker, args=(work, task, theirs), daemon=True)
                    process.start()
                    running[mine] = place, process
                    theirs.close()
                for ready in wait([*running, interruption]):
                    if ready is interruption:
                        if interruption.recv(1)[0] in _INTERRUPTIONS:
                            return
                        continue
                    pipe: Any = ready
                    place, process = running[pipe]
                    try:
                        told: Progress | Done | Failed = pipe.recv()
                    except (EOFError, OSError):  # its process has ended, perhaps in the middle of a message
                        process.join()
                        told = Failed(f"its process ended with status {process.exitcode}")
                    if not isinstance(told, Progress):
                        del running[pipe]
                        pipe.close()
                        process.join()
                    yield place, told
        finally:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.join()


@contextmanager
def _interruption() -> Iterator[socket.socket]:
    """A socket that tells the numbers of signals that came; what Ctrl-C and SIGTERM do waits until the end.

    They raise an exception wherever Python is just then: in the start of a process, which would be known to nobody
    and complain of the one that asked for it, or in a finalizer, where exceptions are lost and the work would go on.
    """
    came: list[int] = []
    reader, writer = socket.socketpair()
    with closing(reader), closing(writer):
        writer.setblocking(False)
        # Written to as the signal comes: a handler runs only when Python goes on, which in a wait may be never.
        others = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        handlers = {
            number: signal.signal(number, lambda number, _: came.append(number))
            for number in _INTERRUPTIONS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            yield reader
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(others)
            for late in came:
                signal.raise_signal(late)


def _worker(work: Callable[..., Any], task: tuple, pipe: Connection) -> None:
    # Ctrl-C comes to all processes of a terminal: the first one says what is to be said.
    with suppress(KeyboardInterrupt, BrokenPipeError):
        try:
            told: Done | Failed = Done(work(*task, lambda value: pipe.send(Progress(value))))
        except Exception as error:
            told = Failed(" ".join(f"{type(error).__name__}: {error}".split()))
        pipe.send(told)
