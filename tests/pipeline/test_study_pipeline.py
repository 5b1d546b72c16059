"""The study with the real dvc on small data: run, stopped, taken up again, with a trial that fails."""

import json
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest

from tests.pipeline.conftest import copied, once
from tests.pipeline.small_project import Project

TRIALS = [
    *("own/model_1-1", "own/model_1-2", "own/model_5-1", "own/model_5-2"),
    *("shared/model_1-1", "ablation/no_ema-1"),
]
STUDY = ("repro", "study/dvc.yaml")


@pytest.fixture(scope="session")
def studied(reproduced: Project, shared: Path) -> Project:
    """The small project with its study."""

    def make(folder: Path) -> None:
        project = copied(reproduced, folder)
        project.dvc(*STUDY)
        project.commit()

    return Project(once(shared / "studied", make), reproduced.mirror)


@pytest.fixture
def study(studied: Project, tmp_path: Path) -> Project:
    """A copy of it, to be changed at will."""
    return copied(studied, tmp_path / "project")


def records(project: Project) -> dict[str, str]:
    """The text of each record by the trial's name."""
    folder = project.folder / "study/records"
    return {path.relative_to(folder).with_suffix("").as_posix(): path.read_text() for path in folder.rglob("*.json")}


def test_the_main_pipeline_does_not_start_it(reproduced: Project) -> None:
    project = reproduced
    assert "stages.study" not in project.dvc("repro", "--force", "--dry").stdout
    assert not (project.folder / "study/records").exists()


def test_every_trial_has_a_record_and_every_promised_file_is_there(studied: Project) -> None:
    study = studied
    assert sorted(records(study)) == sorted(TRIALS)
    table = pd.read_csv(study.folder / "metrics/study.csv")
    assert {"model", "recipe", "seed", "test_accuracy"} <= set(table)
    assert len(table) == len([name for name in TRIALS if "ablation" not in name])
    assert (study.folder / "plots/study/accuracy.png").read_bytes().startswith(b"\x89PNG")
    for name in ("summary", "differences", "ablation"):
        assert len(pd.read_csv(study.folder / f"metrics/study/{name}.csv"))
    assert "| model_1 | 28,954 |" in study.read("metrics/study/study.md")
    assert not list(study.folder.rglob(".*.part*"))


def test_the_first_seed_is_the_main_pipelines_own(studied: Project) -> None:
    study = studied
    for name in ("model_1", "model_5"):
        record = json.loads(study.read(f"study/records/own/{name}-1.json"))
        metrics = json.loads(study.read(f"metrics/{name}.json")) | json.loads(study.read(f"metrics/test/{name}.json"))
        for figure in ("parameters", "train_accuracy", "val_accuracy", "test_accuracy"):
            assert record[figure] == metrics[figure], (name, figure)


def test_with_nothing_changed_nothing_runs_and_everything_again_gives_the_same_bytes(study: Project) -> None:
    before = records(study), study.read("study/dvc.lock"), study.read("metrics/study/study.md")
    assert study.repro("study/dvc.yaml") == []
    shutil.rmtree(study.folder / "study/records")
    study.dvc(*STUDY)
    assert before == (records(study), study.read("study/dvc.lock"), study.read("metrics/study/study.md"))
    assert study.run("git", "status", "--porcelain").stdout == ""


def test_a_changed_recipe_and_other_seeds_concern_their_own_trials_alone(study: Project) -> None:
    study.edit_params(lambda params: params["models"]["model_1"].update(max_lr=0.03))
    path = study.folder / "study/params.yaml"
    path.write_text(path.read_text().replace("model_1: 2", "model_1: 1").replace("model_5: 2", "model_5: 3"))
    output = study.dvc(*STUDY).stdout
    assert "6 trials, 4 of them done" in output
    assert "own/model_1-1: validation" in output and "own/model_5-3: validation" in output
    assert set(records(study)) == {*TRIALS, "own/model_5-3"} - {"own/model_1-2"}
    assert sorted(study.run("git", "status", "--porcelain", "study/records").stdout.split()) == [
        *("??", "D", "M", "study/records/own/model_1-1.json", "study/records/own/model_1-2.json"),
        "study/records/own/model_5-3.json",
    ]


def test_a_trial_that_fails_is_named_and_leaves_the_others_alone(study: Project) -> None:
    path = study.folder / "src/mnist_cnn/models/model_1.py"
    whole = path.read_text()
    fault = "    import torch\n    if torch.initial_seed() == 2:\n        raise ValueError('of seed 2')\n"
    path.write_text(whole.replace("    return stack(", f"{fault}    return stack("))
    ended = study.dvc(*STUDY, check=False)
    assert ended.returncode != 0
    assert "error: own/model_1-2 failed: ValueError: of seed 2" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert records(study).keys() == set(TRIALS)
    # Mended, it goes on with the trials that another file made; the failed one has its record of before.
    path.write_text(whole)
    assert "6 trials, 4 of them done" in study.dvc(*STUDY).stdout
    assert study.run("git", "status", "--porcelain").stdout == ""


def test_an_interrupted_study_ends_everywhere_and_goes_on_where_it_was(study: Project) -> None:
    before = records(study)
    study.edit_params(lambda params: params["models"]["model_5"].update(epochs=999))
    for name in ("own/model_1-1", "own/model_1-2"):
        (study.folder / f"study/records/{name}.json").unlink()
    command = ["-m", "stages.study", "--params", "params.yaml", "--study", "study/params.yaml"]
    command += ["--splits", "data/split", "--computing", "data/libraries/computing.txt", "--records", "study/records"]
    with study.start_in_background("python", *command) as process:
        try:
            assert process.stdout is not None
            # In either order; the two that run then have 999 epochs before them.
            for _ in range(2):
                assert any("own/model_1" in line for line in iter(process.stdout.readline, ""))
            process.send_signal(signal.SIGTERM)
            _, output = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert output.splitlines()[-1] == "interrupted: 'make study' goes on from here"
    assert "Traceback" not in output
    assert study.processes() == []
    study.run("git", "checkout", "params.yaml")
    assert study.repro("study/dvc.yaml") == []
    assert records(study) == before
