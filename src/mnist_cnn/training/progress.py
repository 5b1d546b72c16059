"""A training run's state on disk, from which it goes on when it was killed.

The file lies outside the working folder, because DVC removes a stage's outputs before it runs the stage, and the whole
folder of some experiments after it. Its name is a digest of all that the run follows from, so that a run finds its own
state, wherever it is started again, and never another one's.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.files import cache_folder
from mnist_cnn.data.tensors import load_tensors, save_tensors
from mnist_cnn.engine.execution import ExecutionConfig, computing_class

_TEXT = "text"
_KEPT_S = 14 * 24 * 3600
_NAME_LENGTH = 32
# And what a process that was killed while it wrote has left.
_OF_A_RUN = re.compile(rf"\.?[0-9a-f]{{{_NAME_LENGTH}}}\.safetensors(\.part\.safetensors)?")


class State(NamedTuple):
    """What a run needs to go on: tensors by name, and what JSON can hold."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


class Progress:
    """Where a run keeps its state after each epoch.

    A state that cannot be kept (a full disk) or read (a damaged file) costs the run nothing but the way back.

    Args:
        file: None keeps nothing.
        say: told, in a line, what went wrong, and from where the run goes on.

    Attributes:
        notes: what the run's caller wants to have back with the state, and JSON can hold.
    """

    def __init__(self, file: Path | None = None, say: Callable[[str], object] = lambda line: None) -> None:
        self._file, self._say = file, say
        self.notes: list[Any] = []

    def load(self) -> State | None:
        """The state that an earlier process kept, if any; ``notes`` become its notes."""
        if self._file is None or not self._file.exists():
            return None
        try:
            tensors = load_tensors(self._file, restored_by="training from the beginning")
            values, notes = json.loads(bytes(tensors.pop(_TEXT).tolist()))
        except (InputError, KeyError, ValueError) as error:
            self._say(str(error))
            return None
        self.notes[:] = notes
        self._say("Goes on where an earlier process was ended")
        return State(tensors, values)

    def save(self, state: State) -> None:
        """Keep a state, and the notes, in place of those before, in one step."""
        if self._file is None:
            return
        text = bytearray(json.dumps([state.values, self.notes]).encode())
        try:
            save_tensors(self._file, {**state.tensors, _TEXT: torch.frombuffer(text, dtype=torch.uint8)})
        except OSError as error:
            self._say(f"{self._file}: the state after this epoch could not be kept ({error})")

    def remove(self) -> None:
        """Forget the run, when its result is in its place; and those that nobody has taken up for two weeks."""
        if self._file is None:
            return
        for file in self._file.parent.iterdir():
            # Another process may be faster.
            with suppress(OSError):
                if _OF_A_RUN.fullmatch(file.name) and (file == self._file or _is_old(file)):
                    file.unlink()


def _is_old(file: Path) -> bool:
    return time.time() - file.stat().st_mtime > _KEPT_S


def progress_of(
    follows_from: str | None, execution: ExecutionConfig, say: Callable[[str], object] = lambda line: None
) -> Progress:
    """The progress of a run that follows from settings, code and images of this name; None keeps nothing."""
    if follows_from is None:
        return Progress()
    environment = [torch.__version__, computing_class(execution)]
    name = hashlib.sha256(json.dumps([follows_from, environment]).encode()).hexdigest()
    return Progress(cache_folder() / "training" / f"{name[:_NAME_LENGTH]}.safetensors", say)
