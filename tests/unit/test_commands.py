"""The commands behind make that are no stages."""

from pathlib import Path

import pytest

from mnist_cnn.common.errors import InputError
from stages import readme
from tools.repro import in_order
from tools.verify import altered, apart, stale

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


def test_the_readmes_tables_are_replaced_and_the_rest_left(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    for name in ("one", "two"):
        (tmp_path / f"{name}.md").write_text(f"| new \\1 {name} |\n")
    block = "before\n<!-- {0}.md -->\n{1}<!-- end of {0}.md -->\nafter\n"
    page.write_text(block.format("one", "| old |\n| older |\n") + block.format("two", ""))
    readme.main(page)
    assert page.read_text() == block.format("one", "| new \\1 one |\n") + block.format("two", "| new \\1 two |\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no marks\n", "has no"),
        ("<!-- gone.md -->\n<!-- end of gone.md -->\n", "gone.md: cannot be read"),
    ],
)
def test_a_readme_that_cannot_be_filled_is_refused_and_left(tmp_path: Path, text: str, told: str) -> None:
    page = tmp_path / "README.md"
    page.write_text(text)
    with pytest.raises(InputError, match=told):
        readme.main(page)
    assert page.read_text() == text


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


def test_pipelines_beside_the_one_at_the_top_are_told_apart() -> None:
    locks = dict(zip(("dvc.lock", "study/dvc.lock"), lock_of("1"), strict=True))
    assert apart(locks) == {"second", "third"}


def test_results_are_altered_if_changed_or_deleted_from_git_and_not_if_they_are_dvcs() -> None:
    outs = {"metrics": "deleted", "data/x": "not in cache", "plots/a.csv": "modified"}
    status = {"first": ["changed command", {"changed outs": outs}]}
    assert altered(status, []) == ["plots/a.csv"]
    assert altered(status, ["metrics/model_1.json"]) == ["metrics", "plots/a.csv"]
