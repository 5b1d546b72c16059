"""The commands behind make that are no stages."""

import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import vl_convert

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.sealed import write_sealed
from stages.study import number_of_jobs
from tests.helpers import ROOT
from tools import plots_page, readme, show, verify
from tools.lock import in_order
from tools.objects import damaged_objects
from tools.pages import filled, pages
from tools.processes import interrupt, started
from tools.repro import absent, tell_of_absent
from tools.verify import altered, apart, changed_beside_records, stale

# ---- repro: several models at a time

LOCK = """schema: '2.0'
stages:
  download:
    cmd: a
  train@model_2:
    cmd: b
    outs:
    - path: x
  train@model_1:
    cmd: c
"""


def test_the_lock_files_stages_come_in_the_order_of_the_pipeline() -> None:
    ordered = in_order(LOCK, ["download", "split", "train@model_1", "train@model_2"])
    head, rest = LOCK.split("  train@model_2:\n")
    second, third = rest.split("  train@model_1:\n")
    assert ordered == f"{head}  train@model_1:\n{third}  train@model_2:\n{second}"
    assert in_order(ordered, ["download", "split", "train@model_1", "train@model_2"]) == ordered


def test_a_stage_that_is_no_longer_in_the_pipeline_is_kept() -> None:
    assert sorted(in_order(LOCK, ["train@model_1"]).splitlines()) == sorted(LOCK.splitlines())
    assert in_order(LOCK, []) == LOCK


@pytest.mark.parametrize(
    ("remotes", "advice"), [("", "no remote is set"), ("store\ts3://a/b\t(default)\n", "'dvc pull'")]
)
def test_a_clone_without_data_is_told_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], remotes: str, advice: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tools.repro._output", lambda *command: remotes)
    lock = tmp_path / "dvc.lock"
    tell_of_absent(lock)
    lock.write_text(LOCK)
    tell_of_absent(lock)
    said = capsys.readouterr().out
    assert "1 outputs" in said and "x first" in said and advice in said
    (tmp_path / "x").mkdir()
    tell_of_absent(lock)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("damaged", ["", "<<<<<<< HEAD\nstages:\n", "- a\n"])
def test_a_damaged_lock_file_is_left_to_dvc(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "dvc.lock").write_text(damaged)
    assert absent(tmp_path / "dvc.lock") == []


# ---- readme: generated text on pages


BLOCK = "before\n<!-- {0}.md -->\n{1}<!-- end of {0}.md -->\nafter\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with two results, and pages that have older ones, none, or text that only looks like a block."""
    (tmp_path / "docs").mkdir()
    for name in ("one", "two"):
        (tmp_path / f"{name}.md").write_text(f"| new \\1 {name} |\n")
    (tmp_path / "README.md").write_text(BLOCK.format("one", "| old |\n| older |\n") + BLOCK.format("two", ""))
    (tmp_path / "docs" / "more.md").write_text(BLOCK.format("two", "| old |\n"))
    (tmp_path / "docs" / "none.md").write_text("<!-- a.md -->\n<!-- end of b.md -->\n")
    return tmp_path


def test_generated_text_is_replaced_on_all_pages_and_the_rest_left(project: Path) -> None:
    assert [page.name for page in pages(project)] == ["README.md", "more.md", "none.md"]
    none = (project / "docs" / "none.md").read_text()
    readme.main(project)
    one, two = (BLOCK.format(name, f"| new \\1 {name} |\n") for name in ("one", "two"))
    assert [page.read_text() for page in pages(project)] == [one + two, two, none]
    assert all(filled(page, project) == page.read_text() for page in pages(project))


@pytest.mark.parametrize("missing", ["two.md", "README.md"])
def test_a_page_that_cannot_be_filled_is_refused_and_left(project: Path, missing: str) -> None:
    (project / missing).unlink()
    before = [page.read_text() for page in pages(project) if page.exists()]
    with pytest.raises(InputError, match=f"{project / missing}: cannot be read"):
        readme.main(project)
    assert [page.read_text() for page in pages(project) if page.exists()] == before


# ---- verify


def lock_of(second_reads: str) -> list[dict]:
    first = {"cmd": "a", "deps": [{"path": "code.py", "md5": "c"}], "outs": [{"path": "data/x", "md5": "1"}]}
    second = {"cmd": "b", "deps": [{"path": "data/x", "md5": second_reads}], "outs": [{"path": "metrics", "md5": "2"}]}
    return [{"stages": {"first": first}}, {"stages": {"second": second, "third": {"cmd": "c"}}}]


def test_stages_are_stale_by_code_settings_command_or_what_was_made_anew_and_not_by_missing_data() -> None:
    missing = {"second": [{"changed deps": {"data/x": "deleted", "data": "deleted"}}]}
    assert stale(missing, lock_of("1")) == []
    assert stale({}, lock_of("other")) == ["second"]
    for change in (
        {"changed deps": {"code.py": "modified", "data/x": "deleted"}},
        {"changed deps": {"params.yaml": {"model": "modified"}}},
        "changed command",
    ):
        assert stale({"first": [change]}, lock_of("1")) == ["first"]


def test_pipelines_beside_the_one_at_the_top_are_kept_apart() -> None:
    assert apart({Path("dvc.lock"): ["first"], Path("study/dvc.lock"): ["second", "third"]}) == {"second", "third"}


def test_a_stale_studys_records_may_be_new_and_are_whole(tmp_path: Path) -> None:
    for name in ("records/own/a.json", "records/own/b.json"):
        write_sealed(tmp_path / name, {"val_accuracy": 99.5})
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/study.md").write_text("|")
    made = {"records": "0.dir", "tables": "0.dir", "missing.csv": "0"}
    assert changed_beside_records(tmp_path, made) == ["tables"]
    (tmp_path / "records/own/b.json").write_text('{"val_accuracy": 99.9}')
    assert changed_beside_records(tmp_path, made) == ["records/own/b.json", "tables"]


def test_results_are_altered_if_changed_or_deleted_from_git_and_not_if_they_are_dvcs() -> None:
    outs = {"metrics": "deleted", "data/x": "not in cache", "plots/a.csv": "modified"}
    status = {"first": ["changed command", {"changed outs": outs}]}
    assert altered(status, []) == ["plots/a.csv"]
    assert altered(status, ["metrics/model_1.json"]) == ["metrics", "plots/a.csv"]


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def test_what_is_not_in_git_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    for prepare, fault in ((lambda: None, "not a git repository"), (lambda: git("init"), "dvc.lock")):
        prepare()
        with pytest.raises(InputError, match=fault) as refused:
            verify.main(tmp_path, "named")
        assert "\n" not in str(refused.value)


# ---- show


def test_show_prints_every_model_and_where_the_rest_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame(
        {
            "model": ["model_1", "model_5"],
            "parameters": [28_954, 7_778],
            "epochs": 15,
            "train_accuracy": [99.6912, 98.75],
            "val_accuracy": [99.1, 99.2],
            "test_accuracy": [99.05, 99.444],
            "meets_accuracy_target": [False, True],
            "meets_epochs_target": [True, True],
            "meets_parameters_target": [False, True],
            "test_accuracy_low": [98.84, 99.27],
            "test_accuracy_high": [99.22, 99.57],
            "reference_test_accuracy": [99.05, None],
        }
    )
    table.to_csv(tmp_path / "numbers.csv", index=False)
    show.main(ROOT / "params.yaml", tmp_path / "numbers.csv", tmp_path / "pictures")
    _, _, first, second, _, *where = capsys.readouterr().out.splitlines()
    assert first.split() == "model_1 28,954 99.69 99.10 99.05 98.84 99.22 99.05 1 of 3".split()
    assert second.split() == "model_5 7,778 98.75 99.20 99.44 99.27 99.57 - 3 of 3".split()
    assert where[0].endswith(str(tmp_path / "numbers.md"))
    assert str(tmp_path / "pictures") in where[1]


# ---- plots_page: the set-up of DVC's page of charts


DVC_SETTINGS = """# where the data is
[core]
    remote = store
['remote "store"']
    url = https://example.invalid/%(store)s
    password = "a # b, ${c} = %"
"""


# Takes seconds, and gives the same each time.
bundle = cache(vl_convert.javascript_bundle)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(vl_convert, "javascript_bundle", bundle)
    (tmp_path / "page.html").write_text("<head>{scripts}</head>{plot_divs}\n")
    return tmp_path


def test_the_scripts_are_in_the_page_that_the_settings_name(folder: Path) -> None:
    plots_page.main(folder)
    page = (folder / "page.offline.html").read_text()
    assert page.startswith("<head><script>") and page.endswith("</script></head>{plot_divs}\n")
    assert page.count("</script") == 1
    assert "window.vegaEmbed" in page
    assert (folder / "config.local").read_text() == "[plots]\nhtml_template = page.offline.html\n"


def test_a_second_run_changes_nothing(folder: Path) -> None:
    plots_page.main(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    plots_page.main(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_other_settings_and_who_may_read_them_are_kept(folder: Path, mode: int) -> None:
    path = folder / "config.local"
    path.write_text(DVC_SETTINGS)
    path.chmod(mode)
    plots_page.main(folder)
    assert path.read_text() == DVC_SETTINGS + "[plots]\n    html_template = page.offline.html\n"
    assert path.stat().st_mode & 0o777 == mode


def test_a_page_that_the_user_has_named_is_kept(folder: Path) -> None:
    text = "[plots]\n    html_template = mine.html\n"
    (folder / "config.local").write_text(text)
    plots_page.main(folder)
    assert (folder / "config.local").read_text() == text


def test_settings_that_cannot_be_read_are_refused_and_left(folder: Path) -> None:
    (folder / "config.local").write_text("[plots\n")
    with pytest.raises(InputError, match=r"config\.local: .*line 1"):
        plots_page.main(folder)
    assert (folder / "config.local").read_text() == "[plots\n"


def test_without_the_page_nothing_is_written(folder: Path) -> None:
    (folder / "page.html").unlink()
    with pytest.raises(InputError, match=r"page\.html: cannot be read"):
        plots_page.main(folder)
    assert list(folder.iterdir()) == []


# ---- processes


# Starts itself once more, and waits.
FAMILY = """
import signal, subprocess, sys, time

# A shell has its background jobs ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    if sys.argv[1:]:
        subprocess.Popen([sys.executable, "-c", sys.argv[1]]).wait()
    else:
        print("ready", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_where_the_block_fails_the_child_and_its_own_children_are_interrupted(error: type[BaseException]) -> None:
    # A pipe ends when all that write to it have ended.
    reading, writing = os.pipe()
    with open(reading) as output, open(writing, "w") as theirs:
        command = [sys.executable, "-c", FAMILY, FAMILY]
        with pytest.raises(error), started(command, stdout=theirs, stderr=subprocess.DEVNULL) as child:
            theirs.close()
            assert output.readline() == "ready\n"
            # A group of its own: Ctrl-C on the terminal does not reach it as well.
            assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
            raise error
        assert child.returncode is not None
        assert output.read() == "interrupted\ninterrupted\n"


def test_a_child_that_ends_by_itself_is_left_alone() -> None:
    with started([sys.executable, "-c", "print('done')"], stdout=subprocess.PIPE) as child:
        assert child.communicate()[0] == "done\n"
        interrupt(child)
    assert child.returncode == 0


def test_what_a_child_prints_is_read_as_utf8_and_nothing_in_it_is_a_fault() -> None:
    with started([sys.executable, "-c", r"import os; os.write(1, b'\xc3\xa9\xff')"], stdout=subprocess.PIPE) as child:
        assert child.communicate()[0] == "é\ufffd"


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5"])
def test_a_number_of_jobs_that_is_none_is_refused_by_the_study(jobs: str) -> None:
    with pytest.raises(SystemExit) as ended:
        number_of_jobs(jobs)
    assert f"JOBS: '{jobs}'" in str(ended.value)
    assert number_of_jobs("3") == 3 and number_of_jobs("") >= 1


# ---- objects: what files hold, whatever their times say


@pytest.fixture
def object_cache(tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    """A cache with two files and a folder of them, as DVC makes it; the objects by their hash."""
    objects: dict[str, Path] = {}

    def put(content: bytes, end: str = "") -> str:
        name = hashlib.md5(content).hexdigest() + end
        objects[name] = tmp_path / name[:2] / name[2:]
        objects[name].parent.mkdir(exist_ok=True)
        objects[name].write_bytes(content)
        return name

    members = [{"md5": put(text), "relpath": text.decode()} for text in (b"one", b"two")]
    put(json.dumps(members).encode(), ".dir")
    put(b"of another experiment")
    return tmp_path, objects


def test_each_damaged_object_is_found_and_no_other(object_cache: tuple[Path, dict[str, Path]]) -> None:
    folder, objects = object_cache
    one, two, both, other = objects
    assert damaged_objects(folder, None) == damaged_objects(folder, [both, other]) == []
    for name, seen in ((one, [both]), (one, [one]), (both, [both]), (other, [other])):
        whole = objects[name].read_bytes()
        for damage in (b"", whole[:-1] + bytes([whole[-1] ^ 1])):
            objects[name].write_bytes(damage)
            assert damaged_objects(folder, None) == damaged_objects(folder, seen) == [objects[name]]
            assert damaged_objects(folder, [two]) == []
        objects[name].write_bytes(whole)
    # What is not here is missed by whoever needs it.
    objects[two].unlink()
    assert damaged_objects(folder, [both]) == []
