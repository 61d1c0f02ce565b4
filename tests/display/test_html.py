"""Tables for notebooks."""

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
    assert '<td style="text-align:left">loss</td><td style="text-align:right">2.1</td>' in page
    assert page.count("<th ") == 2
    assert "<th" not in html.rows([("loss", "2.1")])


def test_the_edge_of_a_remark_tells_how_serious_it_is():
    page = html.remarks([("refuse", "a", ""), ("note", "b", "do c")])
    assert html.EDGES["refuse"] in page
    assert page.count("<i>") == 1
    assert html.remarks([]) == ""
