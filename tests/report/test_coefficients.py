"""The summary of a fit."""

from dataclasses import replace

import pandas as pd
import pytest
from planted import runs
from recipes import with_pilot

from flops_fit.laws.check import Check
from flops_fit.report.coefficients import WIDTH, summarise
from flops_fit.result import Result, fit


@pytest.fixture(scope="module")
def result():
    return fit(runs(), name="mine", num_draws=100)


@pytest.mark.parametrize("form", ["five", "tied", "bent"])
def test_every_coefficient_has_error_and_interval(form):
    found = fit(runs(), form=form, num_draws=100)
    text = repr(found.summary())
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    for name, row in found.intervals.iterrows():
        shown = [float(cell) for cell in rows[name][-4:]]
        expected = [row["value"], row["standard_error"], row["low"], row["high"]]
        assert shown == pytest.approx(expected, rel=1e-3)
    assert ("gamma" in rows) == (form == "bent")
    assert max(map(len, text.splitlines())) <= WIDTH


def test_the_facts_say_what_was_fitted_and_how(result):
    text = repr(result.summary())
    assert text.splitlines()[0].strip() == "Scaling law of 'mine'"
    for words in (
        "L = E + A / N^alpha + B / D^beta",
        "least squares of ln L",
        "35, 0 excluded",
        "tokens",
        "degrees of freedom",
        "fitted without the budgets from",
    ):
        assert words in text
    huber = repr(fit(runs(), delta=1e-3, num_draws=100).summary())
    assert "Huber loss, threshold 0.001, of ln L" in huber


def test_a_notebook_shows_tables_and_hostile_text_as_text(result):
    hostile = "<script>alert(1)</script>"
    check = Check("a", "warn", hostile)
    meta = {"name": hostile, "data_unit": hostile}
    page = Result(replace(result.findings, meta=meta, checks=[check])).summary()._repr_html_()
    assert "<script" not in page
    assert page.count("<table") == 2
    assert "95 % low" in page
    assert "<b>warn</b>" in page


def test_without_a_law_the_reason_is_among_the_checks():
    found = fit(runs().iloc[:4], num_draws=100)
    assert found.law is None
    text = repr(found.summary())
    assert "none could be fitted: see the checks" in text
    assert "not known" in text
    assert "refuse: " in text


def test_the_recipe_law_has_its_own_rows(result):
    recipe = pd.DataFrame(
        {"value": [0.01], "low": [0.005], "high": [0.02], "standard_error": [0.003]}, index=["k"]
    )
    found = replace(result.summary(), recipe=recipe)
    assert "k                               0.01         0.003         0.005          0.02" in (
        repr(found)
    )
    assert found._repr_html_().count("<table") == 3


@pytest.mark.parametrize(
    ("tuned", "first", "tells"),
    [
        (("learning_rate", "batch_size"), "Best learning rate = k (N / ", "c_r, c_b and rho tell"),
        (("learning_rate",), "Best learning rate = k (N / ", "c_r tells"),
        (("batch_size",), "Best batch = m (D / ", "c_b tells"),
    ],
)
def test_the_recipe_has_a_formula_of_what_was_found(tuned, first, tells):
    found = fit(with_pilot(), meta={"tokens_per_example": "16"}, num_draws=100)
    recipe = replace(found.recipe_law, tuned=tuned)
    summary = summarise(replace(found.findings, recipe_law=recipe))
    assert summary.recipe_law.startswith(first)
    assert tells in summary.recipe_law
    assert len(summary.recipe) == {"c_r tells": 4, "c_b tells": 3}.get(tells, 8)
