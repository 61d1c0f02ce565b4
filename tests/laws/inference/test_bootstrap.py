from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.inference import bootstrap
from flops_fit.laws.inference.bootstrap import measure_spread
from flops_fit.laws.inference.intervals import log_parameters
from flops_fit.laws.model.frontier import frontier
from flops_fit.laws.runs.points import Points

# 95 % intervals printed by Besiroglu et al. 2024 (4,000 resamples).
PRINTED = {
    "A": (285, 744),
    "B": (1042, 5810),
    "E": (1.769, 1.871),
    "alpha": (0.317, 0.373),
    "beta": (0.331, 0.415),
}


def exponent(laws):
    return laws[:, 4:5] / (laws[:, 3:4] + laws[:, 4:5])


def test_delta_method_is_the_textbook_covariance(sweep):
    """Against a Jacobian by finite differences of the law in its natural parameters."""
    points = Points.from_runs(sweep(noise=0.003))
    fit = fit_parametric(points)
    spread = measure_spread(fit, points)
    x, y = np.log(points.N), np.log(points.D)

    def log_law(p):
        return np.log(p[0] + np.exp(p[1] - p[3] * x) + np.exp(p[2] - p[4] * y))

    p = fit.law.vector[:5]
    h = 1e-6 * np.maximum(np.abs(p), 1)
    J = np.stack([(log_law(p + d) - log_law(p - d)) / (2 * d.sum()) for d in np.diag(h)], axis=1)
    r = np.log(points.loss) - log_law(p)
    expected = r @ r / 30 * np.linalg.inv(J.T @ J)
    np.testing.assert_allclose(spread.covariance[:5, :5], expected, rtol=1e-3)
    assert not spread.covariance[5].any()  # gamma is held


def test_delta_and_wild_agree_on_a_sound_sweep(sweep):
    points = Points.from_runs(sweep(noise=0.003, seed=2))
    spread = measure_spread(fit_parametric(points), points, num_draws=2000)
    widths = [
        np.diff(np.stack(spread.interval(exponent, method=m)), axis=0) for m in ("delta", "wild")
    ]
    assert widths[1] / widths[0] == pytest.approx(1, abs=0.25)


def test_wild_draws_far_wider_than_the_delta_method_set_the_error(sweep):
    """This occurs with E at zero; otherwise the error is the textbook's."""
    points = Points.from_runs(sweep(noise=0.003))
    spread = measure_spread(fit_parametric(points), points)
    textbook = np.sqrt(spread.covariance[3, 3])
    assert spread.standard_error(lambda laws: laws[:, 3:4])[0] == pytest.approx(textbook)
    held = replace(spread, covariance=spread.covariance / 100)
    low, high = np.percentile(spread.draws["wild"][:, 3], [2.5, 97.5])
    expected = (high - low) / 2 / stats.t.ppf(0.975, 30)
    assert held.standard_error(lambda laws: laws[:, 3:4])[0] == pytest.approx(expected)


def test_every_refit_is_converged(sweep):
    """Refitting a draw by hand, from many starts, ends at the same law."""
    points = Points.from_runs(sweep(noise=0.003, seed=4))
    fit = fit_parametric(points)
    spread = measure_spread(fit, points, num_draws=100, seed=7)
    r = np.log(fit.law.loss(points.N, points.D) / points.loss)
    from flops_fit.laws.fitting.parametric import centred
    from flops_fit.laws.fitting.residuals import jacobian

    problem, _ = centred(points)
    Q = np.linalg.qr(jacobian(problem, np.array([fit.theta]))[0])[0]
    signs = np.random.default_rng(7).choice([-1.0, 1.0], (100, len(r)))
    shocks = r / (1 - (Q * Q).sum(axis=1)) * signs
    fitted = fit.law.loss(points.N, points.D)
    for i in (0, 50, 99):
        again = fit_parametric(replace(points, loss=fitted * np.exp(shocks[i])))
        np.testing.assert_allclose(spread.draws["wild"][i], again.law.vector, rtol=5e-3)


def test_clusters_widen_where_errors_are_shared(sweep):
    runs = sweep(noise=0.001, shared_noise=0.004, seed=1)
    points = Points.from_runs(runs)
    fit = fit_parametric(points)
    clusters = runs["size"].to_numpy()
    spread = measure_spread(fit, replace(points, clusters=clusters), num_draws=400)
    alone = measure_spread(fit, points, num_draws=400)

    def log_size(laws):
        return frontier(laws, np.array([1e14]), fit.law.cost)[0]

    wide, narrow = (np.diff(np.ravel(s.interval(log_size))).item() for s in (spread, alone))
    assert wide > 1.1 * narrow
    assert spread.standard_error(log_size).item() > 1.1 * alone.standard_error(log_size).item()


def test_many_runs_take_the_linear_step(sweep, monkeypatch):
    points = Points.from_runs(sweep(noise=0.001))
    fit = fit_parametric(points)
    full = measure_spread(fit, points, num_draws=300).draws["wild"]
    monkeypatch.setattr(bootstrap, "MOST_REFITS", 10)
    linear = measure_spread(fit, points, num_draws=300).draws["wild"]
    np.testing.assert_allclose(exponent(linear).std(), exponent(full).std(), rtol=0.05)


def test_seed_decides_the_draws(sweep):
    points = Points.from_runs(sweep(noise=0.003))
    fit = fit_parametric(points)
    one, two, other = (measure_spread(fit, points, num_draws=50, seed=s) for s in (1, 1, 2))
    assert (one.draws["wild"] == two.draws["wild"]).all()
    assert (one.draws["wild"] != other.draws["wild"]).any()


def test_published_bootstrap_intervals(epoch_runs):
    """Pairs bootstrap of the papers' fit: each end within 15 % of the one printed."""
    points = Points(*(epoch_runs[c].to_numpy(float) for c in ("N", "D", "loss")))
    spread = measure_spread(fit_parametric(points, delta=1e-3), points, num_draws=1000)
    low, high = spread.interval(log_parameters)
    low[1:3], high[1:3] = np.exp(low[1:3]), np.exp(high[1:3])
    found = {name: (low[i], high[i]) for i, name in enumerate(("E", "A", "B", "alpha", "beta"))}
    for name, printed in PRINTED.items():
        np.testing.assert_allclose(found[name], printed, rtol=0.15, err_msg=name)
