import re
from dataclasses import replace

import pytest
from planted import pair

import flops_fit
from flops_fit.errors import ArgumentError, FitError, FlopsFitWarning

HOSTILE = "<script>alert(1)</script> $x$"


def fitted(table, name, log=None, **meta):
    result = flops_fit.fit(table, name=name, num_draws=100, **meta)
    return flops_fit.Result(result.findings, log)


@pytest.fixture(scope="module")
def results():
    first, second = pair(1.5)
    return fitted(first, "gpt"), fitted(second, "rope"), fitted(second, HOSTILE)


@pytest.fixture(scope="module")
def compared(results):
    return flops_fit.compare(*results[:2])


def test_it_is_part_of_the_package(compared):
    assert isinstance(compared, flops_fit.Comparison)
    assert compared.names == ("gpt", "rope")


def test_the_text_has_verdict_table_and_doubts(compared):
    lines = repr(compared).split("\n")
    assert lines[0] == "Comparison of 'gpt', 'rope'"
    assert "rope is better" in lines[1]
    assert lines[1] == compared.verdict
    assert lines[2].split()[:3] == ["C,", "FLOPs", "multiplier"]
    assert "do not say on which held-out data" in lines[-1]


def test_a_table_at_given_budgets(compared):
    table = compared.at([1e13, 1e14])
    assert table["compute_budget"].tolist() == [1e13, 1e14]
    assert (table["multiplier_low"] > 1.3).all()


def test_budgets_beyond_all_reach_are_refused_unless_wanted(compared):
    with pytest.raises(FitError, match="no prediction so far beyond"):
        compared.at(1e22)
    assert len(compared.at(1e22, anyway=True)) == 1


@pytest.mark.slow
def test_several_are_compared_with_the_first(results):
    found = flops_fit.compare(*results)
    table = found.at([1e13])
    assert table["sweep"].tolist() == ["rope", HOSTILE]
    assert found.verdict.count("\n") == 1
    assert len(found.plot().axes) == 2


def test_the_page_escapes_names_and_runs_no_script(results, tmp_path):
    path = flops_fit.compare(results[0], results[2]).report(tmp_path / "page.html")
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "rope" not in page
    assert re.search(r"Content-Security-Policy\" content=\"default-src 'none'", page)


def test_a_notebook_shows_verdict_and_table(compared):
    html = compared._repr_html_()
    assert "rope is better" in html
    assert ">multiplier, 95 %</th>" in html


@pytest.mark.parametrize(
    ("sweeps", "options", "said"),
    [
        ((1, 2), {}, "expected results or names of sweeps, got 1"),
        (("gpt", "rope"), {"bytes_per_token": {"gpt": 4.0}}, "for each of 'gpt', 'rope'"),
        (("gpt", "rope"), {"bytes_per_token": [4.0, -1]}, "expected a positive number"),
    ],
)
def test_bad_arguments(results, sweeps, options, said):
    by_name = dict(zip(("gpt", "rope"), results, strict=False))
    with pytest.raises(ArgumentError, match=said):
        flops_fit.compare(*(by_name.get(sweep, sweep) for sweep in sweeps), **options)


def test_sweeps_of_other_losses_are_refused_unless_wanted(results):
    one, other = (
        flops_fit.Result(replace(result.findings, meta={**result.meta, "loss_fn": loss}))
        for result, loss in zip(results, "ab", strict=False)
    )
    with pytest.raises(ArgumentError, match="the loss differs: a in 'gpt', b in 'rope'"):
        flops_fit.compare(one, other)
    checks = flops_fit.compare(one, other, anyway=True).checks
    assert [check.code for check in checks] == ["incomparable"]


@pytest.fixture
def undrawn_page(monkeypatch):
    monkeypatch.setattr(flops_fit.Comparison, "_page", lambda self: "the page")


@pytest.mark.usefixtures("undrawn_page")
def test_page_and_table_are_logged_on_every_parent_run(results):
    logged = {}

    def log(name, text):
        logged[name] = text
        return f"store/{name}"

    first, second = (flops_fit.Result(result.findings, log) for result in results[:2])
    found = flops_fit.compare(first, second)
    assert sorted(logged) == ["comparisons/gpt-vs-rope.csv", "comparisons/gpt-vs-rope.html"]
    assert found.written_to == ("store/comparisons/gpt-vs-rope.html",) * 2


@pytest.mark.usefixtures("undrawn_page")
def test_a_store_that_fails_costs_a_warning_only(results):
    def log(name, text):
        raise OSError("disk full")

    first = flops_fit.Result(results[0].findings, log)
    with pytest.warns(FlopsFitWarning, match="not logged to a sweep .*disk full"):
        assert flops_fit.compare(first, results[1]).written_to == ()


def test_equal_names_are_numbered(results):
    assert flops_fit.compare(results[0], results[0]).names == ("gpt (1)", "gpt (2)")


def test_names_hold_the_value_that_divided_a_table_and_stay_in_one_line(results):
    meta = {"name": "one\nsweep", "fitted_by": '{"optimizer": "adam"}'}
    divided = flops_fit.Result(replace(results[0].findings, meta=meta))
    assert flops_fit.compare(divided, results[1]).names == ("one sweep adam", "rope")
