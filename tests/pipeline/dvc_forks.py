"""DVC's commands in forks of one process that has loaded it: the real thing, without the second that it takes to start.

Run as a module, it is that process. Only for commands that a test waits for: a signal would not reach the fork.
"""

import array
import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

# What the commands load beside ``dvc.cli``.
_MODULES = (
    *("commands.repro", "commands.status", "commands.experiments.run", "commands.checkout", "commands.metrics"),
    *("commands.data_sync", "commands.plots", "cli.parser", "config", "repo", "repo.reproduce", "repo.status"),
    *("repo.commit", "repo.checkout", "repo.metrics.diff", "repo.metrics.show", "repo.params.diff", "repo.plots"),
    *("repo.experiments", "repo.experiments.queue.workspace", "repo.experiments.executor.local", "repo.index"),
    *(
        "stage.run",
        "stage.cache",
        "stage.serialize",
        "stage.loader",
        "output",
        "dependency.param",
        "parsing",
        "dvcfile",
    ),
    *("fs.dvc", "fs.data", "render.match", "ignore", "lock", "rwlock", "scm", "updater", "ui", "testing.tmp_dir"),
)
_OTHERS = ("dvc_data.index.checkout", "dvc_data.index.fetch", "dvc_data.hashfile.db.local", "pygit2", "dulwich.repo")


class DvcForks:
    """The process that has loaded DVC, and how it is asked to run a command."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno())]
            root = Path(__file__).parents[2]
            self._process = subprocess.Popen(command, cwd=root, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def run(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
        """Run ``dvc`` with the arguments; its status, and what it printed."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": dict(env)}).encode()
            fds = array.array("i", [output.fileno(), errors.fileno()])
            header = len(request).to_bytes(4, "big")
            self._socket.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            self._socket.sendall(request)
            status = int.from_bytes(self._socket.recv(4), "big", signed=True)
            return status, _text(output), _text(errors)

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        self._process.wait()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@cache
def dvc_forks() -> DvcForks:
    """The one process of this process's tests; it ends with it."""
    return DvcForks()


def _serve(connection: socket.socket) -> None:
    while True:
        header, fds, _, _ = socket.recv_fds(connection, 4, 2)
        if not header:
            return
        size, text = int.from_bytes(header, "big"), b""
        while len(text) < size:
            text += connection.recv(size - len(text))
        pid = os.fork()
        if not pid:
            _command(json.loads(text), fds)
        for descriptor in fds:
            os.close(descriptor)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.sendall(status.to_bytes(4, "big", signed=True))


def _command(request: dict[str, Any], fds: list[int]) -> None:
    """Be ``dvc``, and end."""
    status: Any = 1
    try:
        for descriptor, standard in zip(fds, (1, 2), strict=True):
            os.dup2(descriptor, standard)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = ["dvc", *request["arguments"]]
        from dvc.cli import main

        status = main(request["arguments"])
    except SystemExit as ended:
        status = ended.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    for name in (*(f"dvc.{module}" for module in _MODULES), *_OTHERS):
        # Another version may have it elsewhere: then it is loaded when it is needed.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _serve(socket.socket(fileno=int(sys.argv[1])))
