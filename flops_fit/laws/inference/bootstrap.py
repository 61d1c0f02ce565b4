"""Covariances and bootstrap draws of a fit, which `intervals` turns into intervals.

* Delta method: the covariance s^2 (J'J)^-1 of the least-squares fit.
* Wild bootstrap (Wu 1986; HC3 of MacKinnon & White 1985): each run keeps its N and D, its residual
  over (1 - leverage) gets a random sign, and the law is fitted again.
* Bootstrap by cluster (CR3 of Bell & McCaffrey 2002; weights of Webb 2013): if runs of one size
  share an error, all residuals of a size get the same random weight.
* Pairs bootstrap, for Huber fits: runs (or whole clusters) are resampled with replacement, as in
  Besiroglu et al. (2024, section 3.2). The covariance is that of the draws.

Above `MOST_REFITS` runs, a refit is replaced by its first Gauss-Newton step, to which it converges
as the number of runs grows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flops_fit.laws.fitting.newton import solve
from flops_fit.laws.fitting.parametric import (
    Form,
    ParametricFit,
    centred,
    natural,
    natural_slopes,
)
from flops_fit.laws.fitting.residuals import (
    Problem,
    at_bounds,
    clip,
    jacobian,
    residuals,
    tie_basis,
)
from flops_fit.laws.inference.intervals import Spread
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.runs.points import Points

NUM_DRAWS = 600
MOST_REFITS = 3000
# Refits are solved in batches of about this many residuals, which bounds the memory used.
CHUNK = 400_000
# Webb's six-point distribution: these values and their negatives.
WEBB = np.sqrt([0.5, 1.0, 1.5])


def measure_spread(
    fit: ParametricFit, points: Points, *, num_draws: int = NUM_DRAWS, seed: int = 0
) -> Spread:
    """Covariance and bootstrap draws of a fit.

    Least-squares fits get the delta method and the wild bootstrap, and the bootstrap by cluster if
    the points have clusters. Huber fits get the pairs bootstrap.

    Args:
        fit: The fit; every refit starts at its theta.
        points: The runs that it was fitted to.
        num_draws: Number of bootstrap refits.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    if fit.delta is None:
        return _wild_spread(fit, points, num_draws, rng)
    return _pairs_spread(fit, points, num_draws, rng)


def linear_spread(
    point: Array,
    J: Array,
    r: Array,
    to_laws: Callable[[Array], Array],
    *,
    form: Form = "five",
    clusters: np.ndarray | None = None,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Spread:
    """Covariance and draws of any least-squares fit, with one Gauss-Newton step for each refit.

    Args:
        point: The optimum, shape (p,).
        J: Derivatives of the residuals there, shape (n, p).
        r: Residuals of ln L, shape (n,).
        to_laws: Converts points, shape (S, p), to law vectors like `Spread.centre`.
        form: The form of the law.
        clusters: Label of the group whose error each run shares, shape (n,); None for independent
            errors.
        num_draws: Number of bootstrap refits.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    Q, inverse = _factor(J)
    dof = len(r) - len(point)
    s = _residual_std(r, dof)
    shocks = _shocks(r, Q, clusters, num_draws, rng)
    draws = {name: to_laws(point + (part @ Q) @ inverse.T) for name, part in shocks.items()}
    steps = 1e-5 * np.eye(len(point))
    slopes = (to_laws(point + steps) - to_laws(point - steps)).T / 2e-5 @ inverse
    centre = to_laws(point[None])[0]
    covariance = s * s * slopes @ slopes.T
    return Spread(form, centre, covariance, dof, s, draws, _num_clusters(clusters))


def _wild_spread(
    fit: ParametricFit, points: Points, num_draws: int, rng: np.random.Generator
) -> Spread:
    problem, _ = centred(points, fit.aim)
    theta = np.array([fit.theta])
    basis = _free_basis(problem, theta[0])
    r = residuals(problem, theta)[0]
    J = jacobian(problem, theta)[0] @ basis
    Q, inverse = _factor(J)
    dof = len(r) - J.shape[1]
    s = _residual_std(r, dof)
    shocks = _shocks(r, Q, points.clusters, num_draws, rng)
    draws = {name: _refit(problem, fit, part, basis @ inverse, Q) for name, part in shocks.items()}
    to_natural = natural_slopes(theta[0], fit.centre) @ basis @ inverse
    covariance = s * s * (to_natural @ to_natural.T)
    centre = natural(theta, fit.centre)[0]
    return Spread(fit.form, centre, covariance, dof, s, draws, _num_clusters(points.clusters))


def _pairs_spread(
    fit: ParametricFit, points: Points, num_draws: int, rng: np.random.Generator
) -> Spread:
    problem, _ = centred(points, fit.aim)
    theta = np.array([fit.theta])
    n = len(points)
    clusters = np.arange(n) if points.clusters is None else points.clusters
    labels = np.unique(clusters, return_inverse=True)[1]
    k = int(labels.max()) + 1
    # Resampling k of k clusters with replacement gives each a multinomial count, used as a weight.
    counts = rng.multinomial(k, np.full(k, 1 / k), num_draws)[:, labels].astype(float)
    ends = []
    step = max(1, CHUNK // n)
    for at in range(0, num_draws, step):
        weight = counts[at : at + step]
        resampled = replace(problem, weight=weight)
        starts = np.broadcast_to(theta, (len(weight), theta.shape[1]))
        ends.append(solve(resampled, starts, tol=1e-6).theta)
    laws = natural(np.concatenate(ends), fit.centre)
    centre = natural(theta, fit.centre)[0]
    dof = n - fit.num_free
    return Spread(fit.form, centre, np.cov(laws.T), dof, fit.residual_std, {"pairs": laws})


def _free_basis(problem: Problem, theta: Array) -> Array:
    """The map from free parameters to theta, without those at a bound, shape (len(theta), p)."""
    basis = tie_basis(problem.ties)
    return basis[:, ~(basis[at_bounds(theta)] > 0).any(axis=0)]


def _factor(J: Array) -> tuple[Array, Array]:
    """Orthonormal Q, shape (n, p), and M, shape (p, p), with J M = Q, by a scaled SVD.

    The smallest singular values are raised to 1e-9 of the largest one.
    """
    lengths = np.linalg.norm(J, axis=0) + 1e-300
    U, d, Vt = np.linalg.svd(J / lengths, full_matrices=False)
    d = np.maximum(d, 1e-9 * d[0])
    return U, (Vt.T / d) / lengths[:, None]


def _residual_std(r: Array, dof: int) -> float:
    return float(np.sqrt(r @ r / max(dof, 1)))


def _num_clusters(clusters: np.ndarray | None) -> int:
    return 0 if clusters is None else len(np.unique(clusters))


def _refit(problem: Problem, fit: ParametricFit, shocks: Array, inverse: Array, Q: Array) -> Array:
    """Law vectors fitted to the fitted losses plus shocks of shape (num_draws, n)."""
    theta = np.array([fit.theta])
    first_step = theta + (shocks @ Q) @ inverse.T
    if len(problem.x) > MOST_REFITS:
        return natural(clip(first_step), fit.centre)
    r = residuals(problem, theta)[0]
    ends = []
    step = max(1, CHUNK // len(r))
    for at in range(0, len(shocks), step):
        part = shocks[at : at + step]
        # Adding r back turns the observed loss into the fitted one.
        if problem.space == "log":
            loss = problem.loss * np.exp(r + part)
        else:
            loss = problem.loss + r + part
        redrawn = replace(problem, loss=loss, delta=None)
        starts = np.broadcast_to(theta, (len(part), theta.shape[1]))
        if fit.form == "bent":  # the first step, which is cheap here, halves the time of a refit
            starts = clip(theta + np.clip(first_step[at : at + step] - theta, -1.0, 1.0))
        ends.append(solve(redrawn, starts, tol=1e-4).theta)
    return natural(np.concatenate(ends), fit.centre)


def _shocks(
    r: Array, Q: Array, clusters: np.ndarray | None, num_draws: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Redrawn errors by method, shape (num_draws, n) each."""
    leverage = np.minimum((Q * Q).sum(axis=1), 1 - 1e-6)
    shocks = {"wild": r / (1 - leverage) * rng.choice([-1.0, 1.0], (num_draws, len(r)))}
    if clusters is not None:
        shocks["cluster"] = _cluster_shocks(r, Q, clusters, num_draws, rng)
    return shocks


def _cluster_shocks(
    r: Array, Q: Array, clusters: np.ndarray, num_draws: int, rng: np.random.Generator
) -> Array:
    """Residuals by CR3, with one Webb weight per cluster and draw, shape (num_draws, n)."""
    labels, index = np.unique(clusters, return_inverse=True)
    adjusted = np.empty_like(r)
    for g in range(len(labels)):
        members = index == g
        # CR3 solves with I - H for the whole cluster, where HC3 divides by 1 - h.
        block = np.eye(members.sum()) - Q[members] @ Q[members].T
        adjusted[members] = np.linalg.lstsq(block, r[members], rcond=1e-6)[0]
    weights = rng.choice(np.concatenate([-WEBB, WEBB]), (num_draws, len(labels)))
    return adjusted * weights[:, index]
