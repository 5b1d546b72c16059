"""The process that a stage or a tool runs in: how it is interrupted, and that it ends with the one that started it."""

import os
import signal
import sys
import threading
import time

# Names a process with which those started by it, and by them, are to end.
OWNER = "MNIST_CNN_OWNER"
_SHELLS = {"sh", "bash", "dash", "zsh", "fish"}
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_END = 10.0


def is_starting() -> bool:
    """Whether ``python -m`` is just importing the package of the program that it is to run."""
    return sys.argv[:1] == ["-m"]


def quiet_while_starting() -> None:
    """Have Ctrl-C end the process at once, without a traceback, while PyTorch is imported; see ``start``."""
    if is_starting() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def start() -> None:
    """To be called when all is imported: Ctrl-C raises KeyboardInterrupt, any terminal will do, no orphan goes on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        # A layer table on a terminal that knows no line-drawing characters.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if owners := _owners():
        threading.Thread(target=_end_with, args=(owners,), daemon=True).start()


def _owners() -> list:
    """The processes without which this one has nothing to work for: DVC, and whoever runs several of it."""
    if not {"DVC_STAGE", OWNER} & os.environ.keys():
        return []
    import psutil  # some commands run where nothing is installed

    found = []
    try:
        if "DVC_STAGE" in os.environ:
            found = psutil.Process().parents()[:2]
            # DVC starts a stage's command by a shell, most of which are replaced by it.
            if found and found[0].name().removesuffix(".exe") not in _SHELLS:
                found = found[:1]
        if OWNER in os.environ:
            found.append(psutil.Process(int(os.environ[OWNER])))
    except (psutil.Error, ValueError):
        pass
    return found


def _end_with(owners: list) -> None:
    """End this process as SIGTERM does, and for certain, when one of the others has ended."""
    import psutil

    def ended(process: psutil.Process) -> bool:
        try:
            return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    while not any(map(ended, owners)):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_END)
    os._exit(1)
