"""`suggest`: which runs to make next, for any table of runs."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from designs import BUDGETS, LAW, TARGET, possible, sweep, with_misfit
from named_laws import bent

import flops_fit
from flops_fit import suggest
from flops_fit.errors import ArgumentError, FitError, FlopsFitWarning, TableError
from flops_fit.laws.design.candidate_table import MOST
from flops_fit.laws.design.search import Search
from flops_fit.laws.design.uncertainty import Uncertainty
from flops_fit.laws.inference.kriging.cells import MOST_CELLS
from flops_fit.laws.inference.kriging.kriging import Kriging
from flops_fit.laws.inference.misfit import Misfit
from flops_fit.laws.runs.points import Points
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.laws.runs.table import read_runs
from flops_fit.result import Result

COLUMNS = ["compute_budget", "num_params", "num_tokens", "flops", "gain", "why"]
GRID = possible({C: np.arange(-8, 9) / 10 for C in (*BUDGETS, 3e20)})


@pytest.fixture(scope="module")
def result(findings):
    return Result(findings)


def sound(table, n=5):
    assert list(table) == COLUMNS
    assert len(table) == n
    assert np.isfinite(table[COLUMNS[:5]]).all(axis=None)
    assert (table[COLUMNS[:4]] > 0).all(axis=None)
    assert table["gain"].between(0, 1).all()
    assert table["why"].str.len().gt(5).all()
    return table


def test_it_is_public_and_suggests_new_runs_within_reach(result, design_runs):
    assert flops_fit.suggest is suggest
    table = sound(suggest(result, target=TARGET))
    assert table.index.tolist() == [0, 1, 2, 3, 4]
    assert table["compute_budget"].between(1e18, 10**0.5 * 1e20).all()
    near = np.log(table["num_params"].to_numpy()[:, None] / design_runs["num_params"].to_numpy())
    same_budget = np.isclose(
        table["compute_budget"].to_numpy()[:, None], design_runs["compute_budget"].to_numpy()
    )
    assert np.abs(near[same_budget]).min() > 0.1


def test_a_result_its_runs_a_table_and_a_file_say_the_same(result, design_runs, tmp_path):
    design_runs.to_csv(tmp_path / "runs.csv", index=False)
    expected = suggest(result, target=TARGET, n=3)
    for same in (result.runs, tmp_path / "runs.csv"):
        other = suggest(same, target=TARGET, n=3)
        pd.testing.assert_frame_equal(other, expected, rtol=0.02)


@pytest.mark.parametrize("aim", ["num_params", "loss"])
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_as_many_runs_as_asked_for(result, n, aim):
    one = replace(result, findings=with_misfit(result.findings, 30.0))
    sound(suggest(one, target=TARGET, n=n, aim=aim), n)
    sound(suggest(result, target=TARGET, n=n, aim=aim), n)


def test_a_new_row_is_cut_where_n_ends_and_continued_by_the_next_call(result):
    one = replace(result, findings=with_misfit(result.findings, 30.0))
    rows = {C: np.arange(-4, 5) / 5 for C in (3e20,)}
    first = suggest(one, target=TARGET, n=2, candidates=possible(rows))
    assert first["why"].str.startswith("begins a row").all()
    assert first["why"].str.endswith("(its gain needs 4 runs, of which 2 are listed)").all()
    waiting = first.assign(state="running", excluded="running")
    runs = pd.concat([one.runs, waiting], ignore_index=True).fillna({"role": "sweep"})
    again = replace(one, findings=replace(one.findings, runs=runs))
    then = suggest(again, target=TARGET, n=1, candidates=possible(rows))
    assert then["why"].tolist() == ["its row has fewer than four sizes"]
    assert then.index.difference(first.index).size == 1
    assert len(suggest(again, target=TARGET, n=2, candidates=possible(rows))) == 2


def test_the_largest_budget_is_kept(result):
    for most in (1e18, 5e19, 2e21):
        table = suggest(result, target=TARGET, n=8, max_budget=most)
        assert table["compute_budget"].max() <= most
    below = suggest(result, target=1.5e20, n=30)
    assert below["compute_budget"].max() <= 1.5e20


def test_candidates_are_the_runs_to_choose_from(result):
    shifted = GRID.set_axis([f"run {i}" for i in range(len(GRID))])
    table = sound(suggest(result, target=TARGET, candidates=shifted))
    for name in COLUMNS[:4]:
        np.testing.assert_allclose(table[name], shifted[name].loc[table.index])
    assert table.index.is_unique


def test_fewer_candidates_than_asked_for_are_all_suggested(result):
    few = GRID[GRID["compute_budget"] == 1e20].iloc[[0, 1, 16]]
    doubled = pd.concat([few, few], ignore_index=True)
    assert sorted(suggest(result, target=TARGET, n=50, candidates=doubled).index) == [0, 1, 2]


def test_candidates_far_beyond_the_runs_are_left_out(result):
    wide = possible({1e10: (-0.5, 0.5), 1e20: (-0.8, 0.9), 1e26: (-0.5, 0.5)})
    assert sorted(suggest(result, target=TARGET, candidates=wide).index) == [2, 3]


def test_runs_made_or_under_way_are_not_suggested(result):
    made = result.runs.iloc[[4, 12]][["num_params", "num_tokens"]]
    free = possible({1e20: (0.9,)})[["num_params", "num_tokens"]]
    waiting = possible({1e20: (-0.9,)}).assign(state="queued", excluded="queued", role="sweep")
    runs = pd.concat([result.runs, waiting], ignore_index=True)
    one = replace(result, findings=replace(result.findings, runs=runs))
    candidates = pd.concat([made, waiting[["num_params", "num_tokens"]], free], ignore_index=True)
    assert suggest(one, target=TARGET, candidates=candidates).index.tolist() == [3]
    with pytest.raises(ArgumentError, match="none is left; those given have been trained already"):
        suggest(one, target=TARGET, candidates=candidates.iloc[:3])


def test_runs_under_way_lower_the_gain_of_what_is_near_them(result):
    at = possible({1e20: (0.9,)})
    waiting = possible({1e20: (0.85,)}).assign(state="running", excluded="running", role="sweep")
    runs = pd.concat([result.runs, waiting], ignore_index=True)
    one = replace(result, findings=replace(result.findings, runs=runs))
    alone, beside = (suggest(r, target=TARGET, candidates=at)["gain"][0] for r in (result, one))
    assert 0 < beside < 0.9 * alone


def test_gains_multiply_to_what_all_narrow(result):
    few = possible({1e18: (-0.9, 0.9), 1e20: (-0.8, 0.1, 0.9)})
    table = suggest(result, target=TARGET, n=50, candidates=few)
    reached = Search.of(result.findings, TARGET, few, None, "num_params").take(range(5))
    assert 1 - np.prod(1 - table["gain"]) == pytest.approx(reached, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "1e21"}, "target: expected a number of FLOPs, such as 1e21, got '1e21'"),
        ({"target": float("nan")}, "target: expected a number"),
        ({"target": -1e21}, "target: expected a number"),
        ({"target": 1e10}, r"target: expected at least 1e\+18 FLOPs, the smallest budget"),
        ({"target": 1e30}, "at most 1,000 times is predicted.* a larger max_budget"),
        ({"target": 1e30, "candidates": GRID}, "or pass larger candidates"),
        ({"n": 0}, "n: expected a number of runs from 1 to 1000, got 0"),
        ({"n": 2.5}, "n: expected a number of runs"),
        ({"aim": "N"}, 'aim: expected "num_params" or "loss", got \'N\''),
        ({"max_budget": 0}, "max_budget: expected FLOPs"),
        ({"max_budget": 1e10}, r"max_budget: expected at least 1e\+18 FLOPs"),
        ({"max_budget": 1e30}, "max_budget: expected at most 1,000 times the largest budget"),
        (
            {"candidates": {"N": [1e3], "D": [1e3]}},
            "none is left; those given lie over 1,000 times",
        ),
        ({"max_budget": 1e20, "candidates": GRID}, "max_budget: the candidates say"),
        ({"seed": "x"}, "seed: expected a whole number"),
        ({"target": None, "n": None, "aim": None}, "3 problems"),
    ],
)
def test_wrong_arguments_are_refused(result, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        suggest(result, **{"target": TARGET, **arguments})


@pytest.mark.parametrize("wrong", [None, 5, [], {}, {"a": 1}, "no_such_file.csv", object()])
def test_what_is_no_table_is_refused(wrong):
    with pytest.raises(TableError):
        suggest(wrong, target=TARGET)


def ladder(noise=0.003):
    N = np.geomspace(5e7, 5e9, 12)
    noises = np.exp(noise * np.random.default_rng(0).standard_normal(12))
    return pd.DataFrame({"N": N, "D": 20 * N, "loss": LAW.loss(N, 20 * N) * noises})


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (sweep().iloc[:1], "1 finished run: the parametric law needs 8"),
        (sweep().iloc[:7], "7 finished runs"),
        (ladder(), "all runs have one N, one D or one D / N"),
        (ladder(noise=0), "all runs have one N, one D or one D / N"),
    ],
)
def test_runs_that_determine_no_law_get_advice_on_what_to_train_first(runs, reason):
    with pytest.raises(FitError, match=f"{reason}.*Train 4 sizes at each of three budgets"):
        suggest(runs, target=1e23)


def test_where_no_run_has_ended_it_says_so():
    with pytest.raises(FitError, match="20 running"):
        suggest(sweep().assign(state="running", loss=np.nan), target=TARGET)


def test_runs_of_one_budget_are_told_to_begin_another():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FlopsFitWarning)
        table = sound(suggest(sweep(sizes=9, budgets=[1e19]), target=1e21, n=8), 8)
    assert set(table["compute_budget"]) - {1e19}


@pytest.mark.parametrize(
    "runs",
    [
        sweep().assign(unique_tokens=5e9),
        simulate_isoflop(bent(LAW), BUDGETS, num_sizes=7, noise=0.003, half_width=0.75),
        sweep(noise=0.0),
        sweep().assign(loss=sweep()["loss"] - 5),
        sweep(sizes=3, noise=0.0),
    ],
    ids=["repeated", "bent", "exact", "negative", "short"],
)
def test_unusual_tables_get_sound_suggestions(runs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FlopsFitWarning)
        sound(suggest(runs, target=TARGET))


def test_a_fit_in_doubt_is_said(result):
    doubt = flops_fit.laws.check.Check("units", "refuse", "N is in millions in some rows.")
    one = replace(result, findings=replace(result.findings, checks=[doubt]))
    with pytest.warns(FlopsFitWarning, match="in doubt: N is in millions in some rows"):
        suggest(one, target=TARGET)


def test_hundreds_of_runs_and_candidates_stay_cheap(findings, monkeypatch):
    """The work is set by the number of cells and of candidates, whatever the tables hold."""
    table, _ = read_runs(sweep(sizes=50))
    law = Kriging.of(findings.fits["headline"], Points.from_runs(table))
    assert len(table) == 200
    assert len(law.cells.x) <= MOST_CELLS
    many = replace(findings, runs=table, misfit=Misfit((1.0,), (law,)))
    grid = possible({float(C): np.linspace(-1, 1, 60) for C in np.geomspace(1e18, 1e21, 30)})
    sizes = []
    made = Uncertainty.of.__func__

    def counted(cls, findings, target, tests, candidates, **options):
        sizes.append(len(candidates))
        return made(cls, findings, target, tests, candidates, **options)

    monkeypatch.setattr(Uncertainty, "of", classmethod(counted))
    sound(suggest(Result(many), target=TARGET, candidates=grid, n=8), 8)
    assert len(sizes) == 1
    assert sizes[0] <= MOST
