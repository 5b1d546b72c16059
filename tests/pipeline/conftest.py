"""Projects of their own for tests: this repository's files, small data, the real dvc.

``project`` has everything for real. ``stubbed`` has stages that compute nothing, for tests of which of them run. Each
is reproduced once a session, by whichever worker comes first, and copied for each test.
"""

import gzip
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from mnist_cnn.common.files import cache_folder
from tests.helpers import ROOT, idx, squares
from tests.pipeline.forks import start_forks
from tests.pipeline.small_project import FORKS, MODELS, STUDY, Project, copy_repository

# Whose tests a process of pytest-xdist runs.
WORKER = "PYTEST_XDIST_WORKER"
# What the pipelines make, and the tests.
NOT_COPIED = ("metrics/", "plots/", "dvc.lock", "study/dvc.lock", "study/records/", "tests/")
# A dozen seconds of computing and more. The study's first test waits for the study.
LONGEST = (
    "test_experiments_run_as_printed",
    "test_stages_run_again_one_by_one_give_the_same_bytes",
    "test_daily_commands_run_as_printed",
    "test_a_share_of_an_epoch_is_timed_after_two_batches",
    "test_it_ends_as_if_nothing_had_happened_wherever_it_is_killed",
    "test_a_trial_that_fails_is_named_and_leaves_the_others_alone",
    "test_every_part_is_measured_and_reported",
    "test_what_fails_is_named_and_the_rest_goes_on",
    "test_own_images_are_trained_on_and_named_everywhere",
    "test_the_projects_own_tests_pass_with_several",
    "test_a_conflict_in_the_lock_file_is_resolved_as_printed",
    "test_with_nothing_changed_nothing_runs_and_everything_again_gives_the_same_bytes",
    "test_a_change_in_a_helper_is_seen",
    "test_an_interrupted_run_ends_everywhere_and_can_be_taken_up",
    "test_each_fault_is_named_in_its_line",
    "test_a_pull_request_without_results_gets_them_and_one_with_results_is_confirmed",
    "test_one_model_or_one_kind_of_stage_can_be_asked_for",
    "test_a_model_of_other_layers_trains_out_of_the_box_and_is_in_all_results",
    "test_a_renamed_model_leaves_nothing_of_its_old_name",
    "test_an_interrupted_study_ends_everywhere_and_goes_on_where_it_was",
    "test_a_changed_split_reruns_all_but_the_download",
    "test_experiments_side_by_side_fit_a_terminal",
    "test_an_experiment_in_a_folder_of_its_own_has_a_new_model_when_git_knows_its_file",
    "test_an_experiment_runs_with_the_settings_that_were_typed",
    "test_a_model_that_fails_is_named_and_leaves_the_others_alone",
    "test_a_changed_recipe_and_other_seeds_concern_their_own_trials_alone",
    "test_a_trial_runs_everything_elsewhere_and_leaves_this_folder_as_it_was",
)
LOOK = (
    "--params=params.yaml",
    "--looks=looks.yaml",
    "--splits=data/split",
    f"--models={' '.join(MODELS)}",
    "--why=to test",
)
STUB = '"""A stand-in: see stub.py."""\n\nfrom stages.stub import main\n\nmain()\n'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One test that needs a project first, then those that need none: they run while the first worker makes it.

    Of the others the longest come first, so that no worker is left with one when the others have nothing to do.
    """

    def place(item: pytest.Item) -> tuple[bool, bool, int]:
        needs = "tests/pipeline" in item.path.as_posix()
        name = item.name.partition("[")[0]
        return item is not first, needs, LONGEST.index(name) if name in LONGEST else len(LONGEST)

    first = next((item for item in items if "reproduced" in getattr(item, "fixturenames", ())), None)
    items.sort(key=place)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of PyTorch and of the kernels would wait for those of other tests; results do not depend on them."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def own_states(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No training goes on where another test's was interrupted; the compiled kernels are those that are there."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for library in cache_folder().glob("kernels-*"):
        shutil.copy(library, folder)
    monkeypatch.setenv("MNIST_CNN_CACHE", str(folder))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this session have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if WORKER in os.environ else own


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder`` as ``make`` makes it, in whichever worker comes first; the others wait."""
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}.part")
            make(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def forks(shared: Path) -> None:
    """Programs that start at once, for all workers, as ``Project.run`` uses them. Only Linux forks PyTorch safely."""
    if sys.platform != "linux":
        return

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "place").write_text(str(start_forks(os.getppid() if WORKER in os.environ else os.getpid())))

    os.environ[FORKS] = (once(shared / "forks", make) / "place").read_text()


@pytest.fixture(scope="session")
def mirror(shared: Path) -> Path:
    """A folder with small files by MNIST's names."""

    def make(folder: Path) -> None:
        folder.mkdir()
        for split, count, seed in (("train", 400, 0), ("t10k", 100, 1)):
            images = squares(count, seed)
            for kind, content in (("images-idx3", images.pixels), ("labels-idx1", images.labels.byte())):
                (folder / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(content.numpy()), mtime=0))

    return once(shared / "mirror", make)


def shrink(project: Project) -> None:
    def change(params: dict[str, Any]) -> None:
        params["split"]["mnist"] |= {"train": 300, "val": 100}
        params["model"] = "model_5"
        # An EMA over a few steps, as there are few: over more, nothing would be learned.
        short = {"epochs": 1, "batch_size": 32, "ema_decay": 0.5}
        params["models"] = {name: params["models"][name] | short for name in MODELS}
        params["models"]["model_5"] |= {"deskew": True, "tta": True}

    project.edit_params(change)
    study = project.folder / "study/params.yaml"
    study.write_text(yaml.safe_dump(STUDY, sort_keys=False))


def reproduce(project: Project) -> None:
    project.run("git", "init", "--quiet")
    project.commit()
    # As the other workers wait for it.
    project.run("python", "-m", "tools.repro", "--jobs", "2", "--lock", "dvc.lock")
    project.commit()
    # Few files, as they are copied for each test.
    project.run("git", "gc", "--quiet")


def small_copy(folder: Path, mirror: Path) -> Project:
    """The repository with small data, not reproduced."""
    copy_repository(folder, lambda name: not name.startswith(NOT_COPIED))
    # Stages accept the known files alone: in this copy, the small ones are known.
    source = folder / "src/mnist_cnn/prepare/raw.py"
    program = source.read_text()
    for file in mirror.iterdir():
        content = gzip.decompress(file.read_bytes())
        known = f'RawFile(size={len(content)}, md5="{hashlib.md5(content).hexdigest()}")'
        program, replaced = re.subn(rf'("{file.stem}": )RawFile\(.*\)', rf"\1{known}", program)
        assert replaced == 1
    source.write_text(program)
    project = Project(folder, mirror)
    shrink(project)
    project.run("python", "-m", "tools.look", *LOOK)
    return project


@pytest.fixture(scope="session")
def reproduced(shared: Path, mirror: Path) -> Project:
    """The repository with small data, reproduced and committed."""
    return Project(once(shared / "reproduced", lambda folder: reproduce(small_copy(folder, mirror))), mirror)


@pytest.fixture(scope="session")
def reproduced_stubs(shared: Path, mirror: Path) -> Project:
    """The repository with stages that compute nothing (``settings`` is real), reproduced and committed."""

    def make(folder: Path) -> None:
        copy_repository(folder, lambda name: not name.startswith(NOT_COPIED))
        for stage in ("download", "split", "train", "evaluate", "test", "export", "report"):
            (folder / f"stages/{stage}.py").write_text(STUB)
        shutil.copy(Path(__file__).with_name("stub.py"), folder / "stages/stub.py")
        # What loads PyTorch in the stage ``settings``.
        (folder / "src/mnist_cnn/engine/feasible.py").write_text("def check_feasible(settings: object) -> None: ...\n")
        project = Project(folder, mirror)
        shrink(project)
        reproduce(project)

    return Project(once(shared / "stubbed", make), mirror)


def copied(project: Project, folder: Path) -> Project:
    shutil.copytree(project.folder, folder, symlinks=True)
    return Project(folder, project.mirror)


@pytest.fixture
def project(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of the reproduced repository, to be changed at will."""
    return copied(reproduced, tmp_path / "project")


@pytest.fixture
def stubbed(reproduced_stubs: Project, tmp_path: Path) -> Project:
    """A copy of the reproduced repository with stages that compute nothing."""
    return copied(reproduced_stubs, tmp_path / "project")


@pytest.fixture
def stubbed_with_pages(stubbed: Project) -> Project:
    """The same, with its own results on its pages, and without the study, which has not run in it."""
    for name in ("study/dvc.yaml", "study/params.yaml"):
        (stubbed.folder / name).unlink()
    for page in (stubbed.folder / "README.md", *(stubbed.folder / "docs").glob("*.md")):
        for name in set(re.findall(r"<!-- (metrics/\S+\.md) -->", page.read_text())):
            table = stubbed.folder / name
            if not table.is_file():  # not of the pipeline's making
                table.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, table)
    stubbed.run("python", "-m", "tools.readme", "--root", ".")
    stubbed.commit()
    return stubbed
