"""Child processes that end when their parent stops waiting for them."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mnist_cnn.common.process import OWNER


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:  # noqa: ANN401
    """A command in a session of its own; where the block fails or is interrupted, so is all that the command started.

    The session keeps Ctrl-C from coming twice, from the terminal and from here. Where this process is killed, stages
    that it runs by way of DVC end by themselves.

    Args:
        options: of ``subprocess.Popen``; pipes are text in UTF-8, and what is not is replaced.
    """
    environment = {**(options.pop("env", None) or os.environ), OWNER: str(os.getpid())}
    options |= {"encoding": "utf-8", "errors": "replace", "env": environment}
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            yield process
        except BaseException:
            interrupt(process)
            process.wait()
            raise


def interrupt(process: subprocess.Popen[str]) -> None:
    """What Ctrl-C would do to a process of ``started`` and all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
