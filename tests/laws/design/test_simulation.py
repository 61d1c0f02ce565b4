"""The simulated intervals of a design are those that its analysis will give."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.design.assumed_law import CHINCHILLA, assumed_law
from flops_fit.laws.design.simulation import Addition, expected_intervals
from flops_fit.laws.design.standard_errors import standard_errors
from flops_fit.laws.runs.simulate import simulate_isoflop

BUDGETS = np.geomspace(1e18, 1e20, 4)


def design(budgets=BUDGETS, **changes) -> pd.DataFrame:
    runs = simulate_isoflop(CHINCHILLA, budgets, **{"num_sizes": 5, **changes})
    return runs.drop(columns="loss")


@pytest.fixture(scope="module")
def expected():
    runs = design()
    columns = runs["num_params"].to_numpy(), runs["num_tokens"].to_numpy()
    spent = float(runs["flops"].sum())
    additions = [
        Addition("budget", 1e20, (0, 1), *(column[-2:] for column in columns), 2e20),
        Addition("budget", 1e19, tuple(range(20)), *columns, spent),
    ]
    return expected_intervals(runs, additions, law=CHINCHILLA, noise=0.003, num_sweeps=8, seed=0)


def test_widths_are_those_of_refits_to_first_order(expected):
    runs = design()
    first_order = standard_errors(
        CHINCHILLA, runs["num_params"], runs["num_tokens"], noise=0.003,
        compute_budgets=expected.table["compute_budget"],
    )  # fmt: skip
    quantile = stats.t.ppf(0.975, len(runs) - 5)
    np.testing.assert_allclose(
        np.log(expected.table["factor"]), quantile * first_order.log_num_params, rtol=0.25
    )


def test_the_table_is_at_the_largest_budget_and_beyond(expected):
    table = expected.table
    np.testing.assert_allclose(table["compute_budget"], [1e20, 1e21, 1e22])
    np.testing.assert_allclose(table["num_params"], CHINCHILLA.n_opt(table["compute_budget"]))
    np.testing.assert_allclose(table["num_params_high"], table["num_params"] * table["factor"])
    np.testing.assert_allclose(table["num_params_low"], table["num_params"] / table["factor"])
    assert table["factor"].is_monotonic_increasing
    assert (table["covered"] >= 0.75).all()
    assert (table["predicted"] == 1).all()


def test_repeating_all_runs_narrows_by_the_square_root_of_two(expected):
    again = expected.additions[expected.additions["sizes"].map(len) == 20].iloc[0]
    assert again["share"] == 1
    assert again["narrower"] == pytest.approx(1 - 0.5**0.5)
    assert again["factor"] == pytest.approx(expected.table["factor"][1] ** 0.5**0.5)
    assert expected.additions["gain"].is_monotonic_decreasing


@pytest.mark.slow
def test_the_seed_decides_the_simulation():
    runs = design(num_sizes=4)
    one, again, other = (
        expected_intervals(runs, noise=0.01, num_sweeps=1, seed=s).table for s in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one, again)
    assert (one["factor"] != other["factor"]).all()


def test_the_assumed_law_has_its_optimum_where_the_design_expects_it():
    runs = design(np.geomspace(1e19, 1e21, 3))
    law = assumed_law(runs)
    assert law.d_opt(1e20) / law.n_opt(1e20) == pytest.approx(20, rel=0.01)
    assert law.l_opt(1e20) == pytest.approx(CHINCHILLA.l_opt(1e20), rel=1e-3)


def test_small_budgets_keep_an_irreducible_loss():
    runs = design(np.geomspace(1e9, 1e10, 3))
    law = assumed_law(runs)
    assert law.l_opt(10**9.5) == pytest.approx(CHINCHILLA.l_opt(6e18), rel=1e-3)
    assert CHINCHILLA.l_opt(10**9.5) > 10 * law.E


def test_an_optimum_on_measured_costs():
    runs = design(np.geomspace(1e19, 1e21, 3))
    f = 900.0 * runs["num_params"] ** 0.8
    runs = runs.assign(num_tokens=runs["flops"] / f)
    law = assumed_law(runs)
    N = law.n_opt(1e20)
    assert law.d_opt(1e20) / N == pytest.approx(20, rel=0.05)
    assert 900.0 * N**0.8 * law.d_opt(1e20) == pytest.approx(1e20, rel=0.01)


def test_designs_too_small_for_a_law_are_refused():
    with pytest.raises(ArgumentError, match="cannot separate the law's five parameters"):
        expected_intervals(design(num_sizes=1))
    with pytest.raises(FitError, match="in none of the simulated sweeps"):
        expected_intervals(design(num_sizes=3)[:6], num_sweeps=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": 0}, "noise: expected a share of the loss"),
        ({"law": 3}, "law: expected a ParametricLaw"),
        ({"num_sweeps": 0}, "num_sweeps: expected a positive whole number"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        expected_intervals(design(), **options)
