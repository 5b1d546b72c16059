"""A project of its own for each test: this repository's files, small data, the real dvc."""

import gzip
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.small_project import MODELS, ROOT, STUDY, Project, copy_repository, few_digits, idx

# What the pipelines make, and the tests.
NOT_COPIED = ("metrics/", "plots/", "dvc.lock", "study/dvc.lock", "study/records/", "tests/")


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The repository with small data, reproduced once and committed."""
    folder, mirror = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("mirror")
    copy_repository(folder, lambda name: not name.startswith(NOT_COPIED))

    # The download stage accepts the canonical files alone: in this copy, the small files' sums are canonical.
    source = folder / "src/mnist_cnn/download.py"
    program = source.read_text()
    for part, count, seed in (("train", 400, 0), ("t10k", 100, 1)):
        images, labels = few_digits(count, seed)
        for name, content in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            (mirror / f"{name}.gz").write_bytes(gzip.compress(idx(content)))
            program, replaced = re.subn(rf'("{name}": )"\w+"', rf'\1"{hashlib.md5(idx(content)).hexdigest()}"', program)
            assert replaced == 1
    source.write_text(program)

    def shrink(params: dict[str, Any]) -> None:
        params["split"] |= {"train": 300, "val": 100}
        params["model"] = "model_5"
        # An average over a few steps, as there are few: over more, nothing would be learned.
        short = {"epochs": 1, "batch_size": 32, "ema_decay": 0.5}
        params["models"] = {name: params["models"][name] | short for name in MODELS}
        params["models"]["model_5"] |= {"deskew": True, "views": 5}

    project = Project(folder, mirror)
    project.edit_params(shrink)
    (folder / "study/params.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    project.run("git", "init", "--quiet")
    project.commit()
    project.dvc("repro")
    project.commit()
    return project


@pytest.fixture
def project(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of the reproduced repository, to be changed at will."""
    shutil.copytree(reproduced.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", reproduced.mirror)


@pytest.fixture
def reproduced_with_tables(project: Project) -> Project:
    """The same, with its own results in the README, and without the study, which has not run in it."""
    for name in ("study/dvc.yaml", "study/params.yaml"):
        (project.folder / name).unlink()
    page = project.read("README.md")
    for name in set(re.findall(r"<!-- (metrics/\S+\.md) -->", page)):
        table = project.folder / name
        if not table.is_file():  # not of the pipeline's making
            table.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, table)
    project.run("python", "-m", "tools.readme", "--readme", "README.md")
    project.commit()
    return project
