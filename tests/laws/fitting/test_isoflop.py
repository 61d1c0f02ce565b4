import numpy as np
import pandas as pd
import pytest

from flops_fit.laws.fitting.isoflop import curve, fit_isoflop, fit_power_laws

PORIAN = {
    ("long", "kaplan", "kaplan"): 0.834,
    ("long", "kaplan", "standard"): 0.701,
    ("short", "kaplan", "standard"): 0.604,
    ("short", "chinchilla", "standard"): 0.571,
    ("short", "const", "standard"): 0.497,
}


def optima(runs, **options):
    return fit_isoflop(runs["compute_budget"], runs["num_params"], runs["loss"], **options)


def test_planted_symmetric_optimum(sweep):
    found = optima(sweep("symmetric", half_width=0.3), curve="cubic")
    law = fit_power_laws(found)
    assert (found["refused"] == "").all()
    assert law.n_opt.exponent == pytest.approx(0.5, abs=1e-6)
    assert law.l_opt.l_inf == pytest.approx(1.8, abs=0.01)


def test_a_true_parabola_is_found_exactly():
    N = np.geomspace(1e6, 1e7, 7)
    loss = 2 + 0.3 * (np.log(N) - np.log(3e6)) ** 2
    row = fit_isoflop(np.full(7, 1e18), N, loss).iloc[0]
    assert row["num_params"] == pytest.approx(3e6, rel=1e-9)
    assert row["loss"] == pytest.approx(2, rel=1e-12)
    assert row["num_tokens"] == pytest.approx(1e18 / (6 * 3e6), rel=1e-9)
    np.testing.assert_allclose(curve(row, N), loss, rtol=1e-9)


def test_cubic_follows_an_asymmetric_row_better(sweep):
    runs = sweep("asymmetric", half_width=0.75)
    true = runs.groupby("compute_budget")["num_params"].median().to_numpy()
    parabola, cubic = (
        np.abs(np.log(optima(runs, curve=kind)["num_params"].to_numpy() / true)).max()
        for kind in ("parabola", "cubic")
    )
    assert parabola > 0.02
    assert cubic < parabola / 3


def test_wide_rows_are_fitted_near_their_minimum(sweep):
    found = optima(sweep("asymmetric", sizes=13, half_width=1.5))
    assert (found["num_runs"] < 13).all()
    assert (optima(sweep("asymmetric"))["num_runs"] == 7).all()


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (lambda z: -(z**2), "not convex"),
        (lambda z: z + 0.1 * z**2, "edge"),
        (lambda z: 1e-6 * z**2 + 0.01 * np.cos(9 * z), "convex"),
    ],
)
def test_rows_without_a_minimum_are_refused(shape, reason):
    z = np.linspace(-1, 1, 7)
    row = fit_isoflop(np.full(7, 1e18), np.exp(15 + z), 3 + shape(z)).iloc[0]
    assert reason in row["refused"]


def test_three_sizes_give_no_curve():
    row = fit_isoflop(np.full(3, 1e18), [1e6, 2e6, 4e6], [3, 2, 3]).iloc[0]
    assert row["refused"] == "3 sizes, a curve needs 4"


def test_refusals_do_not_depend_on_the_level_of_the_loss(sweep):
    """Neither for rows with a mean near zero nor for losses of either sign."""
    runs = sweep(noise=0.003, half_width=0.5)
    levels = [float(runs["loss"].mean()), 3.0, 20.0]
    first, *others = (optima(runs.assign(loss=runs["loss"] - level)) for level in levels)
    for other in others:
        np.testing.assert_allclose(other["depth"], first["depth"], rtol=1e-6)
        assert other["refused"].tolist() == first["refused"].tolist()
    assert optima(runs.assign(loss=0.0))["refused"].eq("the curve is not convex").all()


@pytest.mark.slow
def test_intervals_cover_the_minimum(sweep):
    hits = []
    for seed in range(150):
        found = optima(sweep("symmetric", noise=0.003, seed=seed, half_width=0.5))
        truth = optima(sweep("symmetric", half_width=0.5))["num_params"]
        hits += ((found["num_params_low"] <= truth) & (truth <= found["num_params_high"])).tolist()
    assert 0.92 <= np.mean(hits) <= 0.985


def test_edges_refuse_the_approach(sweep):
    runs = sweep(sizes=13)
    best = runs.groupby("compute_budget")["num_params"].transform("median")
    law = fit_power_laws(optima(runs[runs["num_params"] >= best * 1.5]))
    assert "edge of its row" in law.n_opt.refused


@pytest.mark.parametrize("setup", sorted(PORIAN))
def test_exponents_of_porian_et_al(porian_points, setup):
    """RefinedWeb, table 1 of Porian et al. 2024: as printed, within .02."""
    warmup, decay, count = setup
    wanted = {
        "file": "summary_df",
        "dataset": "rw",
        "warmup": warmup,
        "decay": decay,
        "param_count": count,
    }
    rows = porian_points[(porian_points[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    law = fit_power_laws(fit_isoflop(rows["flops"], rows["N"], rows["loss"]))
    assert law.n_opt.exponent == pytest.approx(PORIAN[setup], abs=0.02)
