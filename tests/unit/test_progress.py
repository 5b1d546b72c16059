"""A training run that was ended goes on from its last epoch, to the end it would have had."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mnist_cnn.engine.execution import ExecutionConfig
from mnist_cnn.models import build
from mnist_cnn.settings.params import Recipe
from mnist_cnn.training.fit import Epoch, fit
from mnist_cnn.training.progress import Progress, progress_of
from tests.helpers import AUGMENTATION, NATIVE, RECIPE, TORCH, noise, splits_of

EPOCHS = 3
# All that has a state: momentum, EMA, batch norm, dropout, order and augmentation of the images.
WHOLE = RECIPE.model_copy(update={"epochs": EPOCHS, "ema_decay": 0.9, "dropout": 0.1, "augmentation": AUGMENTATION})
PLAIN = RECIPE.model_copy(update={"epochs": EPOCHS, "momentum": 0.0})
SPLITS = splits_of(noise(100), noise(40, 1))
End = tuple[list[bytes], list[Epoch], bytes]


class Killed(Exception):
    """The process ends here."""


class OwnLayer(nn.Module):
    """No layer of the kernels, or in PyTorch's channels-last order; one weight is used twice, another never."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.unused = nn.Conv2d(1, 3, 3, padding=1), nn.Parameter(torch.zeros(2))
        self.norm, self.drop, self.head = nn.BatchNorm2d(3), nn.Dropout(0.2), nn.Linear(3 * 784, 10)
        self.again = self.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.drop(self.norm(self.conv(images))).flatten(1)
        logits: torch.Tensor = self.head(features) + self.again(features)
        return logits


def trained(progress: Progress, recipe: Recipe, execution: ExecutionConfig, own: bool, until: int = EPOCHS) -> End:
    """A run in a process of its own, so to speak: nothing is left of an earlier one but its progress."""
    torch.manual_seed(3)
    network = OwnLayer() if own else build("model_5", WHOLE.dropout)

    def on_epoch(epoch: Epoch, _: nn.Module) -> None:
        progress.notes.append(epoch.epoch)
        if epoch.epoch > until:
            raise Killed

    history = fit(network, SPLITS, recipe, seed=1, execution=execution, on_epoch=on_epoch, progress=progress)
    assert progress.notes == list(range(1, EPOCHS + 1))
    weights = [value.numpy().tobytes() for value in network.state_dict().values()]
    return weights, history, torch.get_rng_state().numpy().tobytes()


@pytest.mark.parametrize(
    ("execution", "recipe", "own"),
    [
        (NATIVE, WHOLE, False),
        (TORCH, WHOLE, False),
        (TORCH._replace(precision="bfloat16"), WHOLE, False),
        (TORCH, WHOLE, True),
        (NATIVE, PLAIN, False),
    ],
    ids=["native", "torch", "bfloat16", "own layer", "plain"],
)
@pytest.mark.parametrize("stops", [[0, 1], [2]])
def test_it_ends_as_if_nothing_had_happened(
    tmp_path: Path, execution: ExecutionConfig, recipe: Recipe, own: bool, stops: list[int]
) -> None:
    file = tmp_path / "state"
    expected = trained(Progress(), recipe, execution, own)
    for until in stops:
        with pytest.raises(Killed):
            trained(Progress(file), recipe, execution, own, until)
    said: list[str] = []
    assert trained(Progress(file, said.append), recipe, execution, own) == expected
    assert len(said) == 1
    # And again, where the process was ended before its result was written.
    assert trained(Progress(file), recipe, execution, own) == expected


@pytest.mark.parametrize("position", [10, 2000, -1])
def test_a_damaged_state_costs_the_way_back_and_nothing_else(tmp_path: Path, position: int) -> None:
    file = tmp_path / "state"
    with pytest.raises(Killed):
        trained(Progress(file), WHOLE, NATIVE, False, until=1)
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    said: list[str] = []
    assert trained(Progress(file, said.append), WHOLE, NATIVE, False) == trained(Progress(), WHOLE, NATIVE, False)
    assert len(said) == 1 and str(file) in said[0]


def test_a_state_that_cannot_be_kept_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    progress = Progress(tmp_path / "file/state", said.append)
    assert trained(progress, PLAIN, NATIVE, False) == trained(Progress(), PLAIN, NATIVE, False)
    assert len(said) == EPOCHS


def test_a_run_finds_its_own_state_and_no_other_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_CNN_CACHE", str(tmp_path))
    with pytest.raises(Killed):
        trained(progress_of("this", NATIVE), PLAIN, NATIVE, False, until=1)
    others = [progress_of("that", NATIVE), progress_of("this", TORCH), progress_of(None, NATIVE)]
    assert [other.load() for other in others] == [None] * 3
    own = progress_of("this", NATIVE)
    assert own.load() is not None and own.notes == [1]
    own.remove()
    assert own.load() is None
