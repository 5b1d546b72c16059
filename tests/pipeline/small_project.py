"""A repository of its own with small data, and the real dvc in it."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.helpers import ROOT
from tools import quick

MODELS = ("model_1", "model_5")
STUDY = {
    "seeds": {"model_1": 2, "model_5": 2},
    "shared": {"recipe": "model_5", "seeds": 1},
    "ablation": {"model": "model_5", "seeds": 1, "changes": {"no_ema": {"recipe": {"ema_decay": 0.0}}}},
}


# Names the folder with the programs of forks.py.
FORKS = "MNIST_CNN_TEST_FORKS"
Ended = subprocess.CompletedProcess[str]

# Copies this repository's files, as they are now, of those names that are wanted.
copy_repository = partial(quick.copy_repository, ROOT)
# The stages of a model, in the order in which they need one another.
OF_MODEL = ("train", "evaluate", "test", "export")


def stages_of(*models: str) -> list[str]:
    """The stages of models, by kind."""
    return [f"{stage}@{model}" for stage in OF_MODEL for model in models]


class Project:
    """A repository in ``folder`` whose mirror of MNIST holds a few images; ``dvc`` and friends run inside."""

    def __init__(self, folder: Path, mirror: Path) -> None:
        self.folder = folder
        self.mirror = mirror

    @property
    def environment(self) -> dict[str, str]:
        """That of the commands: this environment's programs, Git's identity, nothing of the user's own settings."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "MNIST_MIRROR": self.mirror.as_uri()}
        for role in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{role}_NAME": "test", f"GIT_{role}_EMAIL": "test@example.invalid"}
        return environment

    def start(self, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        pipe, env = subprocess.PIPE, env or self.environment
        return subprocess.Popen(command, cwd=self.folder, env=env, stdout=pipe, stderr=pipe, text=True)

    def start_in_background(self, *command: str) -> subprocess.Popen[str]:
        """As a shell starts a background job: SIGINT is ignored, until the program says otherwise."""
        return self.start("sh", "-c", 'trap "" INT; exec "$@"', "sh", *command)

    @property
    def forking_environment(self) -> dict[str, str]:
        """The same, but ``dvc``, stages and tools start at once, where there are forks; no signal reaches them."""
        environment = self.environment
        return environment | {"PATH": f"{os.environ.get(FORKS, '')}{os.pathsep}{environment['PATH']}"}

    def run(self, *command: str, check: bool = True, env: dict[str, str] | None = None) -> Ended:
        with self.start(*command, env=env or self.forking_environment) as process:
            ended = Ended(command, 0, *process.communicate())
        ended.returncode = process.returncode
        assert not check or ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout}\n{ended.stderr}"
        return ended

    def dvc(self, *arguments: str, check: bool = True, env: dict[str, str] | None = None) -> Ended:
        return self.run("dvc", *arguments, check=check, env=env)

    def repro(self, *arguments: str, env: dict[str, str] | None = None) -> list[str]:
        """Run ``dvc repro``; the names of the stages that ran, in order."""
        return stages_run(self.dvc("repro", *arguments, env=env).stdout)

    def _working_here(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd() == str(self.folder.resolve()):
                    found.append(process)
        return found

    def processes(self) -> list[str]:
        """The commands of processes that work in the folder."""
        found = []
        for process in self._working_here():
            with contextlib.suppress(psutil.Error):
                found.append(" ".join(process.cmdline()))
        return found

    def end_processes(self) -> None:
        """End those that work in the folder, such as a queue's workers, of which DVC may forget one."""
        found = self._working_here()
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        for process in psutil.wait_procs(found, timeout=10)[1]:
            process.kill()

    def read(self, path: str) -> str:
        return (self.folder / path).read_text()

    def edit_params(self, change: Callable[[dict[str, Any]], object]) -> None:
        params = yaml.safe_load(self.read("params.yaml"))
        change(params)
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "state")


def stages_run(output: str) -> list[str]:
    """The names of the stages that DVC says it runs, in order; those taken from its cache are not among them."""
    return re.findall(r"Running stage '(.+)'", output)


def printed(page: str, section: str) -> list[str]:
    """The commands that a section of a page prints, without their comments, continued lines joined."""
    text = re.split(r"^##+ ", (ROOT / page).read_text().split(f"# {section}\n")[1], flags=re.MULTILINE)[0]
    lines = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := re.sub(r"\s+#.*", "", line).strip())]


def run_printed(project: Project, command: str) -> str:
    """What a command from a page prints; make sets up no environment."""
    command = command.replace("make ", "make --no-print-directory --old-file=.venv/ready ")
    return project.run("bash", "-c", command).stdout
