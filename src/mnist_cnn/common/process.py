"""The process that a stage or a tool runs in: how it is interrupted, and that it ends with the one that started it."""

import os
import signal
import sys
import threading
import time
from typing import Any

# Names a process with which those started by it, and by them, are to end.
OWNER = "MNIST_CNN_OWNER"
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_END = 10.0
_STANDARD_ERROR = 2


def is_starting() -> bool:
    """Whether ``python -m`` is just importing the package of the program that it is to run."""
    return sys.argv[:1] == ["-m"]


def begin() -> None:
    """To be called by such a package, which has Ctrl-C end the process without a traceback while it is imported.

    From here on, the process also ends with the DVC that runs it as a stage, and with whoever runs several of it.
    """
    if is_starting():
        end_with_owners()


def start() -> None:
    """To be called when all is imported: Ctrl-C raises KeyboardInterrupt, and any terminal will do, or none."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Where some of them are closed, programs started here would take the next files that are opened for them.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8", newline="\n")
        # A layer table on a terminal that knows no line-drawing characters.
        stream.reconfigure(errors="replace")
        setattr(sys, name, stream)


def end_with_owners() -> None:
    """End this process as SIGTERM does, and for certain, when one that it has something to work for has ended."""
    if owners := _owners():
        threading.Thread(target=_end_with, args=(owners,), daemon=True).start()


def _owners() -> list[Any]:
    """The processes to end with; None stands for one that has ended already."""
    if not {"DVC_STAGE", OWNER} & os.environ.keys():
        return []
    import psutil  # some commands run where nothing is installed

    owners: list[Any] = []
    if "DVC_STAGE" in os.environ:
        # The nearest: between it and this process there may be a shell, and a launcher of Python.
        owners += [parent for parent in psutil.Process().parents() if _is_dvc(parent)][:1]
    if OWNER in os.environ:
        try:
            owners.append(psutil.Process(int(os.environ[OWNER])))
        except psutil.NoSuchProcess:
            owners.append(None)
    return owners


def _is_dvc(process: Any) -> bool:  # noqa: ANN401
    import psutil

    try:
        return any("dvc" in os.path.basename(word) for word in process.cmdline()[:3])
    except psutil.Error:
        return False


def _end_with(owners: list[Any]) -> None:
    import psutil

    def has_ended(process: Any) -> bool:  # noqa: ANN401
        try:
            return process is None or not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    while not any(map(has_ended, owners)):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_END)
    os._exit(1)
