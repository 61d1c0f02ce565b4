"""Every check of the fits has a sweep that raises it and one that does not."""

import numpy as np
import pandas as pd
import pytest
from checked import severities

from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.result import fit


def test_minimum_at_edge(sweep):
    runs = sweep(noise=0.001, sizes=13)
    best = runs.groupby("compute_budget")["num_params"].transform("median")
    first = runs["compute_budget"] == runs["compute_budget"].min()
    checks = severities(runs[~first | (runs["num_params"] > best * 1.5)])
    assert checks["minimum-at-edge"] == "warn"
    assert "isoflop-refused" not in checks
    assert severities(runs[runs["num_params"] > best * 1.5])["isoflop-refused"] == "refuse"
    assert not {"minimum-at-edge", "isoflop-refused"} & set(severities(runs))


@pytest.mark.slow
def test_not_convex_and_shallow(sweep, sound):
    assert "not-convex" in severities(sweep(noise=0.02, half_width=0.5))
    many = sweep(noise=0.06, half_width=0.5, sizes=121)
    assert fit(many).optima["refused"].str.contains("too flat").any()
    assert severities(many)["shallow-row"] == "warn"
    shallow = sweep(noise=0.01, half_width=0.5, seed=1)
    assert severities(shallow)["shallow-row"] == "warn"
    assert (fit(shallow).optima["refused"] == "").all()
    assert not {"not-convex", "shallow-row"} & set(severities(sound))


def test_few_sizes_in_a_row(sound):
    assert severities(sound.drop(index=[0, 1, 5, 6]))["few-sizes-in-row"] == "warn"
    assert "few-sizes-in-row" not in severities(sound)


@pytest.mark.slow
def test_a_fit_that_does_not_converge(sweep, sound):
    runs = sweep(noise=0.05, half_width=0.5, seed=16)
    assert severities(runs, delta=1e-9)["not-converged"] == "warn"
    assert "not-converged" not in severities(runs, delta=1e-3)
    assert "not-converged" not in severities(sound, delta=1e-9)


def test_starts_that_disagree(small, sound):
    alone = simulate_isoflop(small, [1e13], num_sizes=15, half_width=1.0, noise=0.003)
    assert severities(alone)["starts-disagree"] == "warn"
    assert "starts-disagree" not in severities(sound)


def test_no_irreducible_loss(sound, sweep):
    runs = sweep()
    N, D = runs["num_params"], runs["num_tokens"]
    assert severities(runs.assign(loss=66 / N**0.35 + 100 / D**0.30))["E-at-zero"] == "warn"
    assert "E-at-zero" not in severities(sound)


def test_ill_conditioned(sweep, sound):
    assert "ill-conditioned" in severities(sweep(noise=0.05, half_width=0.4, seed=2))
    assert "ill-conditioned" not in severities(sound)


def test_wide_exponent(sweep, sound):
    assert severities(sweep(noise=0.03, half_width=0.5))["wide-exponent"] == "warn"
    assert severities(sweep(noise=0.05, half_width=0.4, seed=2))["wide-exponent"] == "refuse"
    assert "wide-exponent" not in severities(sound)


def test_an_asymmetric_law_has_a_narrow_exponent(sound):
    law = ParametricLaw(1.7, 2100.0, 21.0, 0.465, 0.155)
    runs = simulate_isoflop(law, np.geomspace(1e18, 1e20, 5), half_width=0.75, noise=0.002)
    assert "wide-exponent" not in severities(runs)


def test_linear_space(sound):
    shifted = sound.assign(loss=sound["loss"] - 3.0)
    assert severities(shifted)["linear-space"] == "note"
    plain, lifted = fit(sound, method="linear"), fit(shifted)
    assert lifted.law.E == pytest.approx(plain.law.E - 3.0, rel=1e-4)
    assert lifted.law.a == pytest.approx(plain.law.a, rel=1e-4)
    assert lifted.predict(1e15).loss == pytest.approx(plain.predict(1e15).loss - 3.0, rel=1e-4)
    (note,) = [c for c in fit(shifted).checks if c.code == "linear-space"]
    assert "because the loss is not positive in" in note.message
    one = sound.assign(loss=sound["loss"].where(sound.index != 3, 0.0))
    assert severities(one)["linear-space"] == "warn"
    (asked,) = [c for c in plain.checks if c.code == "linear-space"]
    assert "as requested" in asked.message
    assert "linear-space" not in severities(sound)


def test_objectives_disagree(sound):
    biased = sound.copy()
    top = biased["compute_budget"] == biased["compute_budget"].max()
    biased.loc[top & (biased["size"] > 4), "loss"] *= 1.02
    assert "objectives-disagree" in severities(biased, outliers="keep")
    assert "objectives-disagree" not in severities(sound)


def test_backtest(sweep):
    """Rows of three sizes cannot show that the law does not hold; the largest budgets can."""
    fine = sweep(noise=0.002, seed=5, budgets=8, sizes=3)
    top = fine["compute_budget"] == fine["compute_budget"].max()
    broken = fine.assign(loss=fine["loss"].where(~top, fine["loss"] * 0.97))
    assert severities(broken, outliers="keep")["backtest"] == "warn"
    assert "backtest" not in severities(fine)


def test_optimum_beyond_data(sweep):
    runs = sweep(noise=0.001, sizes=13)
    best = runs.groupby("compute_budget")["num_params"].transform("median")
    top = best.max()
    assert "optimum-beyond-data" in severities(runs[runs["num_params"] < top / 1.5])
    assert "optimum-beyond-data" not in severities(runs)


def porian(points, dataset, hparams, decay):
    """One sweep of Porian et al. 2024: short warm-up, all parameters counted, held-out loss."""
    wanted = {
        "dataset": dataset,
        "hparams": hparams,
        "warmup": "short",
        "decay": decay,
        "param_count": "standard",
        "val": "val",
    }
    rows = (points[list(wanted)] == pd.Series(wanted)).all(axis=1)
    return points.loc[rows, ["flops", "N", "D", "loss"]].drop_duplicates()


def test_a_real_sweep_on_which_starts_of_the_papers_fit_disagree(porian_points):
    runs = porian(porian_points, "owt2", "tuned", "const")
    checks = severities(runs, delta=1e-3)
    assert checks["starts-disagree"] == "warn"
    assert "not-converged" not in checks
    assert not {"not-converged", "starts-disagree"} & set(severities(runs))


def test_a_real_sweep_that_follows_no_law(porian_points):
    for decay in ("kaplan", "chinchilla"):
        checks = severities(porian(porian_points, "rw", "base", decay))
        assert checks["lack-of-fit"] == "warn"
        assert not {"objectives-disagree", "backtest"} & set(checks)
