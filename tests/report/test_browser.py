"""The report in a real browser: its numbers are those of `predict`, hostile names do nothing."""

import math

import numpy as np
import pytest
from chromium import browser, installed
from test_page import HOSTILE, hostile  # noqa: F401

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(installed() is None, reason="no Chromium is installed"),
]

LOSS, COUNTS, UNDER_A_CAP = 0.0005, 0.005, 0.02  # as the page says of itself
EXACT = 1e-6
ENDS = 0.1  # of the interval's width: another method may become the wider between two stops


def told(page):
    """What the page shows: values and intervals by name, and its doubts."""
    shown = page.run(
        "['n', 'd', 'loss'].map((id) => [id, document.getElementById(id).dataset.value ?? '',"
        " document.getElementById(`${id}-between`).dataset.value ?? ''])"
    )
    doubts = page.run("[...document.querySelectorAll('#doubts li')].map((li) => li.textContent)")
    values = {name: float(value) for name, value, _ in shown if value}
    ends = {name: [float(end) for end in both.split()] for name, _, both in shown if both}
    size = page.run("document.getElementById('size').textContent")
    return values, ends, doubts, size


def assert_as_predicted(page, expected, counts=COUNTS):
    """The page shows a prediction, N and D to this tolerance; its doubts."""
    values, ends, doubts, size = told(page)
    loss = min(counts, LOSS)
    for name, attribute, tolerance in (
        ("n", "num_params", counts), ("d", "num_tokens", counts), ("loss", "loss", loss)
    ):  # fmt: skip
        assert values[name] == pytest.approx(getattr(expected, attribute), rel=tolerance), name
        low, high = getattr(expected, f"{attribute}_interval")
        slack = tolerance * high + (ENDS * (high - low) if counts > EXACT else 0)
        assert ends[name] == pytest.approx([low, high], abs=slack), name
    assert int(size) == pytest.approx(expected.size, rel=counts, abs=int(counts > EXACT))
    return doubts


def test_the_page_in_a_browser(hostile, tmp_path):  # noqa: F811
    path = hostile.report(tmp_path / "report.html")
    largest = hostile.largest_budget
    with browser(tmp_path / "profile") as page:
        page.open(path)
        assert page.run("document.querySelector('h1').textContent") == HOSTILE
        assert page.run("document.querySelectorAll('script, img:not([src^=data])').length") == 2
        assert_as_predicted(page, hostile.predict(largest), counts=EXACT)

        page.press("slider", "ArrowRight")  # by one stop, a twentieth of a decade
        (doubt,) = assert_as_predicted(page, hostile.predict(largest * 10**0.05))
        assert "1.12 times the largest budget" in doubt
        page.press("slider", "End")
        doubts = assert_as_predicted(page, hostile.predict(1000 * largest))
        assert "Add a budget nearer to it." in doubts[0]

        rng = np.random.default_rng(0)
        for factor in np.exp(rng.uniform(math.log(0.01), math.log(900), 8)):
            page.type("budget", repr(float(factor * largest)))
            assert_as_predicted(page, hostile.predict(float(factor * largest)))
            ratio = float(np.exp(rng.uniform(math.log(3), math.log(900))))
            page.type("ratio", repr(ratio))
            assert_as_predicted(
                page, hostile.predict(float(factor * largest), tokens_per_param=ratio)
            )
            page.type("ratio", "")
            unique = hostile.predict(float(factor * largest)).num_tokens / 10 ** rng.uniform(
                -1, 1.7
            )
            page.type("unique", repr(float(unique)))
            expected = hostile.predict(float(factor * largest), unique_tokens=float(unique))
            doubts = assert_as_predicted(page, expected, UNDER_A_CAP)
            codes = {check.code for check in expected.checks}
            assert any("Muennighoff" in d for d in doubts) == ("repetition-assumed" in codes)
            page.type("unique", "")

        page.type("ratio", "20")
        page.type("unique", "1e9")
        assert told(page)[:2] == ({}, {})
        assert "not both" in told(page)[2][0]
        page.type("unique", "")
        for nothing in ("", "abc", "-1", repr(2000 * largest)):
            page.type("budget", nothing)
            assert told(page)[:2] == ({}, {})

        page.open(path, width=390, state=f"#C={largest!r}&ratio=20")
        assert_as_predicted(page, hostile.predict(largest, tokens_per_param=20.0))
        assert page.run("document.documentElement.scrollWidth") <= 390
        page.run("document.getElementById('copy').click()")
        page.wait("document.getElementById('copied').textContent !== ''")

        assert page.errors == []
        assert {address.partition(":")[0] for address in page.asked_for} <= {
            "file",
            "data",
            "about",
        }
        assert page.run("document.title") == f"{HOSTILE}: scaling laws"
