"""The commands behind make that are no stages."""

from pathlib import Path

import pytest

from mnist_cnn.errors import InputError
from stages import readme
from stages.repro import in_order

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


def test_the_readmes_table_is_replaced_and_the_rest_left(tmp_path: Path) -> None:
    page, table = tmp_path / "README.md", tmp_path / "table.md"
    table.write_text("| new \\1 |\n")
    page.write_text("before\n<!-- comparison -->\n| old |\n| older |\n<!-- end of comparison -->\nafter\n")
    readme.main("comparison", table, page)
    assert page.read_text() == "before\n<!-- comparison -->\n| new \\1 |\n<!-- end of comparison -->\nafter\n"


def test_a_readme_without_marks_is_refused_and_left(tmp_path: Path) -> None:
    page, table = tmp_path / "README.md", tmp_path / "table.md"
    table.write_text("| new |\n")
    page.write_text("no marks\n")
    with pytest.raises(InputError, match=r"README\.md: has no '<!-- comparison -->'"):
        readme.main("comparison", table, page)
    assert page.read_text() == "no marks\n"
