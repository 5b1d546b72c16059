"""A training that is killed, anywhere, goes on, and ends with the same bytes."""

import os
import sys
from pathlib import Path

import pytest

from tests.pipeline.small_project import Project

KILLS = 20
# Forks instead of starting Python and PyTorch anew each time: a fork has what a new process has, at once.
PROGRAM = '''
import os, random, signal, sys, time
from pathlib import Path

import stages
import torch
from mnist_cnn.common.inputs import StageInputs
from stages import train

os.environ["MNIST_CNN_CACHE"] = sys.argv[1]
# What takes seconds in each process.
torch.use_deterministic_algorithms(True)
stages._inputs = StageInputs("train@model_5")
WEIGHTS, HISTORY = Path("checkpoints/model_5.safetensors"), Path("plots/history/model_5.csv")


def start():
    """The stage in a process of its own; DVC has removed its outputs before."""
    for output in (WEIGHTS, HISTORY):
        output.unlink(missing_ok=True)
    if pid := os.fork():
        return pid
    os.dup2(os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    train.main(Path("params.yaml"), "model_5", Path("data/split"), WEIGHTS, HISTORY)
    os._exit(0)


def end():
    began = time.monotonic()
    assert os.waitpid(start(), 0)[1] == 0
    return time.monotonic() - began, WEIGHTS.read_bytes() + HISTORY.read_bytes()


end()
whole, expected = end()
draw, states = random.Random(int(sys.argv[2])), Path(sys.argv[1], "training")
kills = int(sys.argv[3])


def resumed():
    return Path("said.txt").read_text().count("Goes on")


number, killed = 0, 0
# On a busy machine few kills may come between the first epoch's end and the last one's: then there are more of them.
while number < kills or (killed <= kills / 2 or resumed() <= kills / 4) and number < 4 * kills:
    number += 1
    for _ in range(1 + number % 2):
        pid = start()
        time.sleep(draw.uniform(0, whole))
        os.kill(pid, signal.SIGKILL)
        killed += os.waitpid(pid, 0)[1] == signal.SIGKILL
    if end()[1] != expected:
        sys.exit(f"kill {number}: another end")
    if list(states.glob("*.safetensors")):
        sys.exit(f"kill {number}: a state is left")
print(killed, resumed())
'''


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_it_ends_as_if_nothing_had_happened_wherever_it_is_killed(project: Project, tmp_path: Path) -> None:
    project.edit_params(lambda params: params["models"]["model_5"].update(epochs=4, dropout=0.1))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "cache"), "1", str(KILLS)]
    killed, resumed = map(int, project.run(*command).stdout.split()[-2:])
    # Some come after the end, or before the first epoch's.
    assert killed > KILLS / 2 and resumed > KILLS / 4
