import numpy as np
import pandas as pd
import pytest

from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.inference.backtest import backtest
from flops_fit.laws.runs.points import Points


def held_out(runs):
    points, C = Points.from_runs(runs), runs["compute_budget"].to_numpy(float)
    fits = {form: fit_parametric(points, form=form) for form in ("five", "tied")}
    return backtest(points, C, fits), fits


def test_a_law_without_noise_is_predicted(sweep):
    table, _ = held_out(sweep())
    assert (table.query("form == 'five'")["loss_rmse"] < 1e-8).all()
    assert (table.query("form == 'five'")["num_params_error"].abs() < 0.05).all()


def test_held_out_budgets_take_no_part(sweep):
    runs = sweep(noise=0.003)
    table, _ = held_out(runs)
    top = table[table["num_held_out"] == 7].query("form == 'five'").iloc[0]
    train = runs[runs["compute_budget"] < runs["compute_budget"].max()]
    held = runs[runs["compute_budget"] == runs["compute_budget"].max()]
    fit = fit_parametric(Points.from_runs(train))
    error = np.log(fit.law.loss(held["num_params"], held["num_tokens"]) / held["loss"])
    assert top["loss_rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
    assert top["loss_bias"] == pytest.approx(error.mean(), rel=1e-3)
    assert sorted(table["num_held_out"].unique()) == [7, 14]


def test_a_single_run_above_the_rows_is_held_out_with_the_row_below(sweep):
    runs = sweep(noise=0.003)
    alone = runs.iloc[[-1]].assign(compute_budget=4e14, num_tokens=runs["num_tokens"].iloc[-1] * 4)
    table, _ = held_out(pd.concat([runs, alone], ignore_index=True))
    assert sorted(table["num_held_out"].unique()) == [8, 15]
    assert table["num_params_error"].notna().all()


@pytest.mark.parametrize(("budgets", "sizes", "simulated"), [(5, 7, 2.0), (4, 5, 3.0), (3, 5, 4.3)])
def test_the_limit_agrees_with_simulation(sweep, budgets, sizes, simulated):
    """95th percentiles of 400 to 1,000 simulated sweeps per design."""
    table, _ = held_out(sweep("chinchilla", budgets, sizes, noise=0.003, half_width=0.5))
    assert table.query("form == 'five'")["limit"].iloc[0] == pytest.approx(simulated, rel=0.3)


@pytest.mark.slow
def test_the_ratio_stays_below_its_limit_under_a_correct_law(sweep):
    rows = [held_out(sweep(noise=0.003, seed=s))[0].iloc[0] for s in range(60)]
    over = np.mean([row["ratio"] > row["limit"] for row in rows])
    assert over <= 0.13


def test_runs_without_rows_hold_out_the_largest(sweep):
    rng = np.random.default_rng(0)
    runs = sweep()
    N, D = np.exp(rng.uniform(11, 14, 60)), np.exp(rng.uniform(14, 17, 60))
    law = fit_parametric(Points.from_runs(runs)).law
    points = Points(N, D, law.loss(N, D))
    table = backtest(points, 6 * N * D, {"five": fit_parametric(points)})
    assert table["num_held_out"].tolist() == [8, 15]
    assert (table["loss_rmse"] < 1e-7).all()
