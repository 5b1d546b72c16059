"""Model cards of made-up results."""

import re

import pytest
from markdown_it import MarkdownIt

from mnist_cnn.report.cards import card
from mnist_cnn.settings.params import load
from tests.helpers import ROOT
from tests.results import ROBUSTNESS, model_result

PARAMS = load(ROOT / "params.yaml")


@pytest.mark.parametrize("name", PARAMS.models)
def test_a_card_is_whole_and_tells_what_was_measured(name: str) -> None:
    text = card(model_result(name, test_errors=61), PARAMS, "a | b")
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert not re.search(r"<p>[^<]*\|[^<]*\|", html), "a table that is none"
    assert f"<h1>{name}</h1>" in html and f"load_model(&quot;{name}&quot;)" in html
    shown = ["99.39", "99.22 to 99.52", "35 kB", f"{PARAMS.models[name].max_lr}", "99.4 % accuracy"]
    assert all(text in html for text in shown)
    assert html.count('<td style="text-align:right">') >= 2 * len(ROBUSTNESS)


def test_a_card_names_what_harms_and_what_does_not() -> None:
    text = card(model_result(test_errors=100), PARAMS, None)
    harmless, harmful = (set(found.split(", ")) for found in re.findall(r"by: ([^.]*(?:\.\d[^.]*)*)\.", text)[-2:])
    assert harmless and harmful and not harmless & harmful
    assert len(harmless | harmful) < len(ROBUSTNESS)


def test_without_a_look_a_card_shows_no_test_figure() -> None:
    text = card(model_result(test_errors=None), PARAMS, None)
    assert "Test accuracy" not in text and "Corruption" not in text and "meets all" not in text
