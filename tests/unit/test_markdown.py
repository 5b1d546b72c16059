"""Tables of Markdown, as GitHub renders them."""

import re

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mnist_cnn.report.markdown import table

GITHUB = MarkdownIt("commonmark").enable("table")
CELLS = st.text("|\\`*a <-:", max_size=12).map(str.strip)


@given(st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1)))
@example([["a|b", "a\\|b", "a\\\\|b"], ["`a|b`", "`a\\|b`", "`a\\\\|b`"], ["", "\\", "|"]])
def test_a_cell_renders_as_it_would_outside_a_table(rows: list[list[str]]) -> None:
    html = GITHUB.render(table(rows[0], rows))
    rendered = [re.findall("<t[hd]>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", html, re.DOTALL)]
    assert rendered == [[GITHUB.renderInline(cell) for cell in row] for row in [rows[0], *rows]]


def test_columns_are_aligned_left_but_where_said_otherwise() -> None:
    html = GITHUB.render(table(["a", "b", "c"], [["1", "2", "3"]], "lr"))
    assert re.findall("<td(.*?)>", html) == ["", ' style="text-align:right"', ""]
