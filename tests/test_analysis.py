"""What an analysis leaves behind for people to look at."""

import pytest
from named_laws import bent
from planted import BUDGETS, LAW, runs

from flops_fit.analysis import _headline, write_files
from flops_fit.errors import FlopsFitWarning
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.report import html_page
from flops_fit.report.tables import as_cells
from flops_fit.result import Result, fit


@pytest.fixture(scope="module")
def result():
    return fit(runs(), num_draws=100)


@pytest.mark.slow
def test_report_table_plots_and_laws_are_written(result, tmp_path):
    write_files(result, tmp_path)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    kinds = {f"chinchilla_table.{kind}" for kind in ("csv", "md", "tex")}
    assert {"report.html", "summary.txt", "plots/isoflops.svg", "laws/result.json"} <= written
    assert kinds <= written
    first, _, *rows = (tmp_path / "chinchilla_table.md").read_text().splitlines()
    cells = as_cells(result.chinchilla_table(), result.meta)
    assert [name.strip() for name in first.strip("|").split("|")] == list(cells.columns)
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows] == (
        cells.to_numpy().tolist()
    )
    assert "plots/curves.svg" not in written  # there are none
    assert Result.load(tmp_path / "laws").law == result.law


def test_a_report_that_cannot_be_drawn_costs_nothing_else(result, tmp_path, monkeypatch):
    monkeypatch.setattr(html_page, "draw", lambda result: 1 / 0)
    with pytest.warns(FlopsFitWarning, match=r"could not be drawn \(ZeroDivisionError"):
        write_files(result, tmp_path)
    assert Result.load(tmp_path / "laws").law == result.law
    assert not (tmp_path / "report.html").exists()


def test_without_a_law_the_files_say_so(tmp_path):
    write_files(fit(runs().iloc[:7]), tmp_path)
    assert (
        (tmp_path / "chinchilla_table.md")
        .read_text()
        .startswith("No table: no law could be fitted")
    )
    assert "No prediction" in (tmp_path / "report.html").read_text()


def test_gamma_is_logged_only_where_the_law_bends(result):
    assert set(_headline(result)) == {
        f"law_{name}" for name in ("E", "A", "B", "alpha", "beta", "a")
    }
    table = simulate_isoflop(bent(LAW), BUDGETS, noise=0.002, seed=3)
    logged = _headline(fit(table, num_draws=100))
    assert logged["law_gamma"] == pytest.approx(0.5, abs=0.1)
