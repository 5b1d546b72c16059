"""The pipeline on images of one's own, with real training on a small set."""

import gzip
from pathlib import Path
from typing import Any

import pandas as pd

from tests.helpers import idx, squares
from tests.pipeline.small_project import Project, stages_run

CLASSES = ["cat", "dog", "a | b"]


def put(folder: Path, seed: int) -> None:
    """400 images of three classes to learn, 100 to test."""
    for part, count in (("train", 400), ("t10k", 100)):
        images = squares(count, seed)
        labels = (images.labels % len(CLASSES)).byte()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images.pixels.numpy()))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels.numpy()), mtime=0))


def choose_own(params: dict[str, Any]) -> None:
    params |= {"data": "custom", "model": "model_5", "models": {"model_5": params["models"]["model_5"]}}
    params["split"]["custom"] |= {"train": 300, "val": 100}
    params["targets"]["custom"]["test_accuracy"] = 12.5
    params["custom"] = {"title": "Pets", "images": "pets", "classes": CLASSES}


def test_own_images_are_trained_on_and_named_everywhere(project: Project) -> None:
    folder = project.folder
    put(folder / "custom_data", seed=5)
    project.dvc("add", *map(str, sorted((folder / "custom_data").glob("*ubyte*"))))
    project.edit_params(choose_own)
    ran = stages_run(project.run("python", "-m", "tools.repro", "--jobs", "2", "--lock", "dvc.lock").stdout)
    assert ran[1:3] == ["download", "split"] and {"train@model_5", "report"} < set(ran)

    comparison = (folder / "metrics/comparison.md").read_text()
    assert "Pets" in comparison and "reference" not in comparison.lower() and "99.4" not in comparison
    confusion = pd.read_csv(folder / "plots/confusion.csv")
    assert list(confusion["actual"].unique())[:3] == CLASSES
    card = (folder / "metrics/cards/model_5.md").read_text()
    assert "Pets: 300 images" in card and "dog" in card
    assert "MNIST" not in card.partition("## Meant for")[2]
    # Without a declared look at this test set.
    assert (folder / "metrics/test/model_5.json").read_text() == "{}\n"

    # Nothing more to do, whatever was written beside the images.
    assert (folder / "custom_data/checksums.md5").exists() and project.repro() == []
    put(folder / "custom_data", seed=6)
    ended = project.dvc("repro", check=False)
    assert ended.returncode != 0 and "custom_data: train-images-idx3-ubyte, " in ended.stdout + ended.stderr
