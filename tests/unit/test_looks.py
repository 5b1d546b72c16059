"""Looks at the test set: which recipes they are at, and what happens where there is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.sealed import read_sealed, write_sealed
from mnist_cnn.data.images import STATISTICS, Normalisation, save_images
from mnist_cnn.engine.checkpoint import save_weights
from mnist_cnn.evaluation.looks import Look, is_declared, load_looks, recipe_digest
from mnist_cnn.models import build
from mnist_cnn.settings.params import Params, load
from stages import test as stage
from tests.helpers import ROOT, noise
from tools import look

PARAMS = ROOT / "params.yaml"
SETTINGS = load(PARAMS)


def changed(section: str, **values: Any) -> Params:  # noqa: ANN401
    """The settings with some of a section's changed."""
    content = SETTINGS.model_dump()
    part = content
    for name in filter(None, section.split(".")):
        part = part[name]
    part |= values
    return Params.model_validate(content)


@pytest.mark.parametrize(
    ("section", "values", "follows"),
    [
        ("models.model_5", {"max_lr": 0.1}, True),
        ("models.model_5.augmentation", {"shift_px": 0.0}, True),
        ("train", {"seed": 2}, True),
        ("train", {"engine": "torch"}, True),
        ("train", {"engine": "torch", "precision": "bfloat16"}, True),
        ("train", {"engine": "native", "device": "cpu"}, False),
        ("split.mnist", {"val": 4000}, True),
        ("split.kmnist", {"val": 4000}, False),
        ("", {"data": "kmnist"}, True),
        ("models.model_4", {"max_lr": 0.1}, False),
        ("evaluate", {"batch_size": 64}, False),
        ("targets.mnist", {"max_epochs": 3}, False),
    ],
)
def test_a_look_is_at_one_choice_of_a_model(
    tmp_path: Path, section: str, values: dict[str, Any], follows: bool
) -> None:
    write_sealed(tmp_path / STATISTICS, {"data": "kmnist", "sums": {"a": "1"}})
    digest = recipe_digest("model_5", SETTINGS, ROOT)
    looks = [Look(date="2026-11-23", commit="", why="", models={"model_5": digest, "model_4": "0" * 16})]
    now = recipe_digest("model_5", changed(section, **values), tmp_path)
    assert is_declared("model_5", now, looks) is not follows
    assert not is_declared("model_4", digest, looks) and not is_declared("model_5", digest, [])


def test_a_look_at_own_images_is_none_at_others(tmp_path: Path) -> None:
    settings, digests = changed("", data="custom"), set()
    for sums in ("1", "2"):
        write_sealed(tmp_path / STATISTICS, {"data": "custom", "sums": {"a": sums}})
        digests.add(recipe_digest("model_5", settings, tmp_path))
    assert len(digests) == 2
    with pytest.raises(InputError, match="'dvc repro split'"):
        recipe_digest("model_5", settings, tmp_path / "empty")


BEFORE = '# A comment\nlooks:\n  - date: "2026-11-23"\n    commit: a\n    why: b\n'


def declared(tmp_path: Path, **options: str) -> Path:
    """A file of looks, with one that the tool has added."""
    file = tmp_path / "looks.yaml"
    file.write_text(BEFORE)
    look.main(PARAMS, file, tmp_path, **{"models": "model_5 model_7", "why": "all is chosen"} | options)
    return file


def test_the_tool_adds_a_look_and_keeps_the_rest_of_the_file(tmp_path: Path) -> None:
    file = declared(tmp_path, why='its "reason":\n# é')
    assert file.read_text().startswith(BEFORE)
    first, second = load_looks(file)
    assert (first.why, second.why) == ("b", 'its "reason": # é')
    assert second.models == {name: recipe_digest(name, SETTINGS, tmp_path) for name in ("model_5", "model_7")}
    text = file.read_text()
    look.main(PARAMS, file, tmp_path, models="model_7", why="again")
    assert file.read_text() == text, "nothing new to look at"


@pytest.mark.parametrize(
    ("options", "fault"), [({"models": " "}, "MODELS"), ({"models": "model_9"}, "model_9"), ({"why": " "}, "WHY")]
)
def test_a_look_needs_models_and_a_reason(tmp_path: Path, options: dict[str, str], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        declared(tmp_path, **options)
    assert (tmp_path / "looks.yaml").read_text() == BEFORE


@pytest.mark.parametrize("entry", ['models: {model_5: "xyz"}', "seen: 1", "reason: none"])
def test_a_damaged_list_of_looks_is_refused(tmp_path: Path, entry: str) -> None:
    (tmp_path / "looks.yaml").write_text(f'looks:\n  - {{date: "2026-11-23", commit: a, why: b, {entry}}}\n')
    with pytest.raises(InputError, match="looks.yaml: "):
        load_looks(tmp_path / "looks.yaml")


def test_the_stage_reads_test_images_only_where_a_look_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr("mnist_cnn.engine.device.keep_freed_memory", lambda: None)
    looks, splits = declared(tmp_path), tmp_path / "split"
    made = {"metrics": tmp_path / "metrics.json", "record": tmp_path / "record.json"}

    # The images are not there yet.
    stage.main(PARAMS, "model_6", looks, splits, tmp_path / "weights", **made)
    assert json.loads(made["metrics"].read_text()) == {}
    assert read_sealed(made["record"], "")["tested"] is None
    assert "make look MODELS=model_6" in capsys.readouterr().out
    with pytest.raises(InputError, match="weights"):
        stage.main(PARAMS, "model_7", looks, splits, tmp_path / "weights", **made)

    save_images(splits / "test.safetensors", noise(30))
    write_sealed(splits / "statistics.json", Normalisation(0.1, 0.3)._asdict())
    save_weights(tmp_path / "weights", build("model_7"))
    stage.main(PARAMS, "model_7", looks, splits, tmp_path / "weights", **made)
    kept = read_sealed(made["record"], "")["tested"]
    assert kept["images"] == 30
    accuracy = json.loads(made["metrics"].read_text())["test_accuracy"]
    assert accuracy == pytest.approx(100 * kept["correct"] / 30, abs=1e-4)
