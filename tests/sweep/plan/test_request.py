"""What a sweep may take, as text."""

import pytest

from flops_fit.errors import ArgumentError
from flops_fit.sweep.plan.request import Spending


@pytest.mark.parametrize(
    ("text", "hours", "shown"),
    [
        ("2h", 2, "2 h"),
        ("2 hours", 2, "2 h"),
        (" 30 min ", 0.5, "30 min"),
        ("90 minutes", 1.5, "1.5 h"),
        ("1 h 30 min", 1.5, "1.5 h"),
        ("30 MIN", 0.5, "30 min"),
        ("45s", 45 / 3600, "45 s"),
        (".5 D", 12, "12 h"),
    ],
)
def test_times(text, hours, shown):
    spending = Spending.parse(text)
    assert spending.hours_at(None, devices=8) == pytest.approx(hours)
    assert spending.text == shown
    assert Spending.parse(shown).text == shown


@pytest.mark.parametrize(
    ("text", "shown"), [("50 USD", "50 USD"), ("$50", "50 $"), ("50.0EUR", "50 EUR")]
)
def test_money_is_hours_of_all_devices(text, shown):
    spending = Spending.parse(text)
    assert spending.text == shown
    assert spending.hours_at(2.5, devices=4) == pytest.approx(5)


@pytest.mark.parametrize("text", ["", "2", "1e16", "2 parsecs", "0 h", "-2h", "50 usd", "h", "2h3"])
def test_other_texts_are_refused(text):
    with pytest.raises(ArgumentError, match=r"expected FLOPs as .*'2h' or '30 min', or money"):
        Spending.parse(text)
