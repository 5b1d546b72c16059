"""Commands in forks of processes that have loaded what they import: the real thing, without the seconds to start.

There are two such processes, one with DVC and one with PyTorch and all else that stages import, but for this project's
own code, which is read anew by each command. All workers of a session share them. Run as a module, this is one of them.
Only for commands that a test waits for: a signal would not reach the fork.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import platform
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
Command = Callable[[list[str]], int | None]

# What DVC's commands load beside ``dvc.cli``.
_OF_DVC = (
    *("commands.repro", "commands.status", "commands.experiments.run", "commands.checkout", "commands.metrics"),
    *("commands.data_sync", "commands.plots", "cli", "cli.parser", "config", "repo", "repo.reproduce", "repo.status"),
    *("repo.commit", "repo.checkout", "repo.metrics.diff", "repo.metrics.show", "repo.params.diff", "repo.plots"),
    *("repo.experiments", "repo.experiments.queue.workspace", "repo.experiments.executor.local", "repo.index"),
    *("repo.artifacts", "repo.brancher", "repo.datasets", "repo.graph", "repo.open_repo", "repo.stage", "repo.trie"),
    *("stage.run", "stage.cache", "stage.serialize", "stage.loader", "output", "dependency.param", "parsing"),
    *("cachemgr", "data_cloud", "dvcfile", "fs.dvc", "fs.data", "render.match", "ignore", "lock", "rwlock", "scm"),
    *("updater", "ui", "ui.table", "testing.tmp_dir", "types", "utils.strictyaml", "_debug"),
)
_MODULES = {
    "dvc": (
        *(f"dvc.{module}" for module in _OF_DVC),
        *("dvc_data.fs", "dvc_data.index.checkout", "dvc_data.index.fetch", "dvc_data.hashfile.db.local", "pygit2"),
        *("dulwich.ignore", "dulwich.repo", "dulwich.worktree", "fsspec.implementations.memory", "networkx"),
        *("platformdirs", "pyparsing", "pyparsing.testing", "ruamel.yaml", "tabulate", "wcwidth.table_wide"),
    ),
    "python": (
        # The last is what 'torch.use_deterministic_algorithms' imports.
        *("torch", "torch.onnx._internal.exporter._core", "torch._inductor.config", "torchinfo", "torchvision"),
        *("onnx", "onnxruntime", "onnxscript", "safetensors.torch", "scipy.stats", "pandas", "PIL.Image"),
        *("matplotlib.pyplot", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
        *("psutil", "pydantic", "ruamel.yaml", "tqdm", "pathspec", "packaging.requirements", "configobj"),
    ),
}
# A program that asks for a fork to do its work; what is not for forks, the program of that name does.
_PROGRAM = """\
#!{python} -IS
import array, json, os, socket, sys

def instead():
    os.execv({program!r}, [{name!r}, *sys.argv[1:]])

if {name!r} == "python" and (sys.argv[1:2] != ["-m"] or not sys.argv[2].startswith(("stages.", "tools."))):
    instead()
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect({address!r})
except OSError:
    instead()
request = json.dumps({{"arguments": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}).encode()
fds = array.array("i", [1, 2])
connection.sendmsg([len(request).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
connection.sendall(request)
os._exit(int.from_bytes(connection.recv(4) or b"\\1", "big") & 255)
"""


# Python would warn of processes that run when nobody refers to them.
_started: list[subprocess.Popen[bytes]] = []


def start_forks(owner: int) -> Path:
    """Start the processes that are forked; the folder with a ``dvc`` and a ``python`` that ask for forks.

    Args:
        owner: the number of the process with which they end; they remove the folder.
    """
    # Names of sockets may have no more than some hundred characters.
    programs = Path(tempfile.mkdtemp(prefix="forks-"))
    # PyTorch reads them when it is imported; stages ask for the same.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    if platform.machine() == "x86_64":
        environment["ATEN_CPU_CAPABILITY"] = "avx2"
    for name in _MODULES:
        address, own = programs / f"{name}.socket", Path(sys.executable).with_name(name)
        program = programs / name
        program.write_text(_PROGRAM.format(python=sys.executable, program=str(own), name=name, address=str(address)))
        program.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen(100)
            command = [sys.executable, "-m", __name__, name, str(listener.fileno()), str(owner)]
            fds, null = [listener.fileno()], subprocess.DEVNULL
            _started.append(subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=fds, stdin=null))
    return programs


def _serve(listener: socket.socket, owner: int, command: Command) -> None:
    running: dict[int, socket.socket] = {}

    def tell_of_ended(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                process, status = ended
                # Who has asked may be gone.
                with contextlib.suppress(OSError), running.pop(process) as connection:
                    connection.sendall((os.waitstatus_to_exitcode(status) & 255).to_bytes(4, "big"))

    signal.signal(signal.SIGCHLD, tell_of_ended)
    # Ctrl-C is for the tests, which end their commands, and then end: so do the forks and this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while _is_running(owner):
        ready, _, _ = select.select([listener], [], [], 1)
        if not ready:
            continue
        connection, _ = listener.accept()
        # A fork may end before it is noted down.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        if not (process := os.fork()):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
        else:
            running[process] = connection
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        if not process:
            listener.close()
            _do(connection, command)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _do(connection: socket.socket, command: Command) -> None:
    """Do what is asked for, as a process of its own would, and end."""
    arguments = _become_what_is_asked_for(connection)
    connection.close()
    status = _status(command, arguments)
    sys.stdout.flush()
    os._exit(status)


def _become_what_is_asked_for(connection: socket.socket) -> list[str]:
    """Take the folder, the environment and the output of the program that asks; its arguments."""
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
    # The streams that are there know their old files.
    if os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
    else:
        sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    arguments: list[str] = request["arguments"]
    return arguments


def _status(command: Command, arguments: list[str]) -> int:
    """The exit status of a command; what Python would say of its end is said."""
    try:
        return (command(arguments) or 0) & 255
    except SystemExit as ended:
        if isinstance(ended.code, int):
            return ended.code & 255
        print(ended.code or "", end="\n" if ended.code else "", file=sys.stderr)
        return 1 if ended.code else 0
    except BaseException:
        traceback.print_exc()
        return 1


def _dvc(arguments: list[str]) -> int:
    from dvc.cli import main

    sys.argv = ["dvc", *arguments]
    status: int = main(arguments)
    return status


def _python(arguments: list[str]) -> None:
    """``python -m module options``."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    _, module, *options = arguments
    # As Python has them while it imports the module's package; it puts the module's file in the first place.
    sys.argv = ["-m", *options]
    sys.path[:1] = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _, _name, _descriptor, _owner = sys.argv
    for _module in _MODULES[_name]:
        # Another version may have it elsewhere: then it is loaded when it is needed.
        with contextlib.suppress(ImportError):
            importlib.import_module(_module)
    # The forks would look through all of it, and through the lock files that they read, for what is not used any more,
    # again and again; they end soon.
    gc.freeze()
    gc.set_threshold(100_000)
    _listener = socket.socket(fileno=int(_descriptor))
    _serve(_listener, int(_owner), {"dvc": _dvc, "python": _python}[_name])
    shutil.rmtree(Path(_listener.getsockname()).parent, ignore_errors=True)
