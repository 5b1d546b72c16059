"""What this machine cannot do is refused before anything runs."""

import pytest
import torch

from mnist_cnn.common.errors import InputError
from mnist_cnn.engine import feasible
from mnist_cnn.engine.feasible import check_feasible
from mnist_cnn.settings.params import Params, load
from tests.helpers import ROOT

SETTINGS = load(ROOT / "params.yaml")


def with_recipe(name: str, **changes: object) -> Params:
    recipe = SETTINGS.models[name].model_copy(update=changes)
    return SETTINGS.model_copy(update={"models": SETTINGS.models | {name: recipe}})


def with_memory(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    monkeypatch.setattr(feasible, "_memory_bytes", lambda device: int(gigabytes * 1e9))


def test_the_settings_that_are_here_can_be_done_with_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 0.2)
    check_feasible(SETTINGS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without such a device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="^train.device: 'cuda' .*cpu"):
        check_feasible(SETTINGS.model_copy(update={"train": SETTINGS.train.model_copy(update={"device": "cuda"})}))


def test_dropout_for_a_network_without_is_refused() -> None:
    with pytest.raises(InputError, match="^models.model_1: .*dropout.*0.1"):
        check_feasible(with_recipe("model_1", dropout=0.1))


def test_batches_that_no_memory_holds_are_refused_and_the_largest_that_may_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_memory(monkeypatch, 1)
    with pytest.raises(InputError, match="^models.model_1.batch_size: 50,000 is not allowed: .*at most ") as error:
        check_feasible(with_recipe("model_1", batch_size=50_000))
    most = int(str(error.value).rpartition("at most ")[2].replace(",", ""))
    check_feasible(with_recipe("model_1", batch_size=most))
    with pytest.raises(InputError):
        check_feasible(with_recipe("model_1", batch_size=most + 1))
    many = SETTINGS.model_copy(update={"evaluate": SETTINGS.evaluate.model_copy(update={"batch_size": 60_000})})
    with pytest.raises(InputError, match="^evaluate.batch_size: 55,000"):
        check_feasible(many)
