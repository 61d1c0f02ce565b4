"""Tables for notebooks."""

import re

import pandas as pd
import pytest

from flops_fit.display import html

HOSTILE = "<script>alert(1)</script> & <b>"


@pytest.mark.parametrize(
    "page",
    [
        html.block([HOSTILE]),
        html.rows([(HOSTILE, HOSTILE)], (HOSTILE, HOSTILE)),
        html.remarks([("warn", HOSTILE, HOSTILE)]),
        html.frame(pd.DataFrame({HOSTILE: [HOSTILE]})),
    ],
)
def test_all_text_is_escaped(page):
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;" in page


def test_rows_have_names_to_the_left_and_values_to_the_right():
    page = html.rows([("loss", "2.1")], ("", "value"))
    assert [*re.findall("<td style=.text-align:(left|right)", page)] == ["left", "right"]
    assert page.count("<th ") == 2
    assert "<th" not in html.rows([("loss", "2.1")])


def test_texts_are_to_the_left_and_all_of_a_frame_to_the_right():
    assert "right" not in html.facts([("note", "a text"), ("in", "a file")])
    assert "left" not in html.frame(pd.DataFrame({"N": ["1.20k"], "loss": ["2.1"]}))


@pytest.mark.parametrize(("text", "broken"), [("1.20k to 3.40k", False), ("a " * 30, True)])
def test_an_interval_stays_in_one_line_and_a_sentence_does_not(text, broken):
    assert ("nowrap" not in html.rows([(text,)])) == broken


def test_the_edge_of_a_remark_tells_how_serious_it_is():
    page = html.remarks([("refuse", "a", ""), ("note", "b", "do c")])
    assert html.EDGES["refuse"] in page
    assert page.count("<i>") == 1
    assert html.remarks([]) == ""
