"""Everyday commands, on a project whose stages compute nothing: a trial of the pipeline, experiments."""

import shutil
import signal
from pathlib import Path

import pytest

from tests.pipeline.small_project import Project, run_printed, stages_run


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that programs take for the system's temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def state(project: Project) -> dict[Path, tuple[bytes, int]]:
    """All files with their times, but what DVC and Python keep for themselves."""
    own = {".dvc/tmp", "__pycache__"}
    files = [path for path in project.folder.rglob("*") if path.is_file()]
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in files
        if not any(name in path.as_posix() for name in own)
    }


def test_a_trial_runs_everything_elsewhere_and_leaves_this_folder_as_it_was(stubbed: Project, temporary: Path) -> None:
    # What is not committed is tried, too.
    stubbed.edit_params(lambda params: params["train"].update(seed=7))
    before = state(stubbed)
    output = run_printed(stubbed, "make quick JOBS=1 MODELS=model_1")
    ran = stages_run(output)
    assert (
        ran[:3] == ["settings", "download", "split"]
        and {"train@model_1", "report"} < set(ran)
        and "train@model_5" not in ran
    )
    run, trial = output.split("TRIAL")
    assert "model_1" in trial and "model_5" not in trial and "300 images" in trial
    # There is no remote, and nothing to tell of what did not run.
    assert run.count("up to date") == 1 and "dvc push" not in run and "didn't change" not in run
    assert state(stubbed) == before
    assert list(temporary.iterdir()) == []


def test_an_interrupted_trial_leaves_nothing(stubbed: Project, temporary: Path) -> None:
    dry = ("make", "--dry-run", "--no-print-directory", "--old-file=.venv/ready", "quick", "JOBS=1")
    with stubbed.start_in_background("sh", "-c", f"exec {stubbed.run(*dry).stdout}") as process:
        try:
            assert process.stdout is not None
            assert any("Running stage" in line for line in process.stdout)
            [folder] = temporary.glob("mnist-quick-*")
            assert Project(folder, folder).processes()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert list(temporary.iterdir()) == []


def test_an_experiment_in_a_folder_of_its_own_has_a_new_model_when_git_knows_its_file(stubbed: Project) -> None:
    models = stubbed.folder / "src/mnist_cnn/models"
    shutil.copy(models / "model_1.py", models / "residual.py")
    stubbed.edit_params(lambda params: params["models"].update(residual=params["models"]["model_1"]))
    refused = stubbed.dvc("exp", "run", "--temp", check=False)
    assert refused.returncode != 0
    assert "models.residual" in refused.stderr and "git add" in refused.stderr
    stubbed.run("git", "add", str(models))
    assert "train@residual" in stages_run(stubbed.dvc("exp", "run", "--temp").stdout)


def test_experiments_side_by_side_fit_a_terminal(stubbed: Project) -> None:
    stubbed.dvc("exp", "run", "--temp", "--name", "gentle", "--set-param", "models.model_5.max_lr=0.05")
    stubbed.dvc("exp", "run", "--queue", "--name", "waiting", "--set-param", "models.model_5.max_lr=0.07")
    table = run_printed(stubbed, "make experiments")
    assert "gentle" in table and "waiting" not in table
    [header] = [line.split() for line in table.splitlines() if "Experiment" in line]
    assert header == ["Experiment", "metrics/model_5.json:val_accuracy", "models.model_5.max_lr"]
    assert max(map(len, table.splitlines())) <= 120
