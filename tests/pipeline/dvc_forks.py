"""DVC's commands in forks of one process that has loaded it: the real thing, without the second that it takes to start.

Run as a module, it is that process. Only for commands that a test waits for: a signal would not reach the fork.
"""

import array
import contextlib
import gc
import importlib
import json
import os
import select
import signal
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
    *("repo.artifacts", "repo.brancher", "repo.datasets", "repo.graph", "repo.open_repo", "repo.stage", "repo.trie"),
    *("stage.run", "stage.cache", "stage.serialize", "stage.loader", "output", "dependency.param", "parsing"),
    *("cachemgr", "data_cloud", "dvcfile", "fs.dvc", "fs.data", "render.match", "ignore", "lock", "rwlock", "scm"),
    *("updater", "ui", "ui.table", "testing.tmp_dir", "types", "utils.strictyaml", "_debug"),
)
_OTHERS = (
    *("dvc_data.fs", "dvc_data.index.checkout", "dvc_data.index.fetch", "dvc_data.hashfile.db.local", "pygit2"),
    *("dulwich.ignore", "dulwich.repo", "dulwich.worktree", "fsspec.implementations.memory", "networkx"),
    *("platformdirs", "pyparsing", "pyparsing.testing", "ruamel.yaml", "tabulate", "wcwidth.table_wide"),
)
# A program that asks for a fork to be 'dvc' for it; where that process is gone, it is dvc itself.
_PROGRAM = """\
#!{python} -IS
import array, json, os, socket, sys

connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect({address!r})
except OSError:
    os.execv({dvc!r}, ["dvc", *sys.argv[1:]])
request = json.dumps({{"arguments": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}).encode()
fds = array.array("i", [1, 2])
connection.sendmsg([len(request).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
connection.sendall(request)
os._exit(int.from_bytes(connection.recv(4) or b"\\1", "big") & 255)
"""


class DvcForks:
    """The process that has loaded DVC, and how it is asked to run a command.

    ``programs`` is a folder with a ``dvc`` that asks it, for the programs that call DVC by its name.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.programs = Path(self._folder.name)
        self._address = str(self.programs / "socket")
        dvc = self.programs / "dvc"
        own = str(Path(sys.executable).with_name("dvc"))
        dvc.write_text(_PROGRAM.format(python=sys.executable, address=self._address, dvc=own))
        dvc.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen()
            command = [sys.executable, "-m", __name__, str(listener.fileno())]
            root = Path(__file__).parents[2]
            # It ends when its input does, which is when this process does.
            self._process = subprocess.Popen(command, cwd=root, pass_fds=[listener.fileno()], stdin=subprocess.PIPE)

    def run(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
        """Run ``dvc`` with the arguments; its status, and what it printed."""
        with (
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
            socket.socket(socket.AF_UNIX) as connection,
        ):
            connection.connect(self._address)
            request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": dict(env)}).encode()
            fds = array.array("i", [output.fileno(), errors.fileno()])
            header = len(request).to_bytes(4, "big")
            connection.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            connection.sendall(request)
            answer = connection.recv(4)
            assert answer, f"dvc {' '.join(arguments)} was killed\n{_text(output)}\n{_text(errors)}"
            return int.from_bytes(answer, "big"), _text(output), _text(errors)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@cache
def dvc_forks() -> DvcForks:
    """The one process of this process's tests; it ends with it."""
    return DvcForks()


def _serve(listener: socket.socket) -> None:
    def collect(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    signal.signal(signal.SIGCHLD, collect)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _command(connection)
        connection.close()


def _command(connection: socket.socket) -> None:
    """Be ``dvc``, and end."""
    status: Any = 1
    try:
        header, fds, _, _ = socket.recv_fds(connection, 4, 2)
        size, text = int.from_bytes(header, "big"), b""
        while len(text) < size:
            text += connection.recv(size - len(text))
        request = json.loads(text)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, standard in zip(fds, (1, 2), strict=True):
            os.dup2(descriptor, standard)
            os.close(descriptor)
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
        status = status if isinstance(status, int) else 1
        connection.sendall((status & 255).to_bytes(4, "big"))
        os._exit(status & 255)


if __name__ == "__main__":
    for name in (*(f"dvc.{module}" for module in _MODULES), *_OTHERS):
        # Another version may have it elsewhere: then it is loaded when it is needed.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # The forks would look through all of it for what is not used any more, again and again.
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
