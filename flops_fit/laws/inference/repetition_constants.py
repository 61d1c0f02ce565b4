"""The constants R_D* and R_N* of repeated data, as far as the runs determine them.

If runs see their data more than once, the law is one of effective tokens D' (see
`model.repetition_law`).

* R_D* is fitted if the runs can distinguish the published fading from none; else the published
  constant is used.
* R_N* is fitted, jointly with the law and R_D*, if the runs show that excess parameters fade. Else
  parameters count in full in the fit: with the published R_N* = 5.31 the right half of every row of
  new data would be bent too.

The uncertainty of fitted constants widens every interval (see `Spread.centre`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.check import Check
from flops_fit.laws.distributions import t_tail
from flops_fit.laws.fitting.parametric import Form, ParametricFit, refit, theta_of
from flops_fit.laws.fitting.repetition import LEAST_EPOCHS, Search, fit_repetition
from flops_fit.laws.fitting.residuals import LOWER, UPPER
from flops_fit.laws.inference.bootstrap import linear_spread
from flops_fit.laws.inference.intervals import Spread
from flops_fit.laws.model.arrays import FADING, GAMMA, NUM_PARAMETERS, Array
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.repetition_law import R_DATA, R_PARAMS, RepetitionLaw, effective_tokens
from flops_fit.laws.runs.exclusions import epochs
from flops_fit.laws.runs.points import Points

# Fewest runs, and fewest with more than two passes over their data, to fit constants to.
LEAST_RUNS = 9
LEAST_REPEATED = 4
# Excess parameters fade if 1 / R_N* exceeds zero at this level (one-sided t test).
LEVEL = 0.01
# Above this R_N*, parameters count in full.
AS_GOOD_AS_FULL = 1e3


def unique_tokens(runs: pd.DataFrame) -> Array | None:
    """Unique tokens of each run, from `unique_tokens` or `epochs`.

    Returns:
        Shape (n,); None if no run is known to see its data more than once.
    """
    D, passes = runs["num_tokens"].to_numpy(float), epochs(runs)
    if not (passes > 1).any():
        return None
    unique = D / np.fmax(passes, 1.0)
    if "unique_tokens" in runs:
        unique = pd.to_numeric(runs["unique_tokens"], errors="coerce").to_numpy(float)
    return np.fmin(unique, D)


def measure_repetition(
    points: Points,
    start: ParametricLaw,
    delta: float | None,
    *,
    both: bool = True,
    bent: bool = False,
) -> RepetitionLaw | None:
    """Fit the data-constrained law with R_D*, and R_N* if possible.

    R_D* is determined if the standard error of 1 / R_D* is at most half of 1 / R_D*, or half of the
    published value if that is larger. R_N* is fitted too if 1 / R_N* is determined in the same
    sense and clearly above zero. Otherwise parameters count in full in the fit, and the law's R_N*
    is infinite if 1 / R_N* is clearly below the published value, and the published value if not.

    Args:
        points: The runs with their unique tokens; losses must be positive.
        start: The law at which the search starts.
        delta: Huber's threshold; None for least squares.
        both: Whether R_N* may be fitted.
        bent: Whether gamma is fitted too.

    Returns:
        The law; None if the runs do not determine R_D*.
    """
    repeated = points.D > LEAST_EPOCHS * points.unique_tokens
    if len(points) < LEAST_RUNS or repeated.sum() < LEAST_REPEATED:
        return None
    try:
        joint = fit_repetition(points, start, delta=delta, bent=bent) if both else None
        if joint is not None and _knows_data(joint) and _params_fade(joint, len(points)):
            return joint
        full = fit_repetition(points, start, r_params=np.inf, delta=delta, bent=bent)
    except FitError:
        return None
    if not _knows_data(full):
        return None
    if joint is not None and _params_count_in_full(joint):
        return full
    return replace(full, r_params=R_PARAMS)


def check_excess_parameters(law: RepetitionLaw, points: Points, form: Form) -> list[Check]:
    """Warn if excess parameters fade, in a fit that counts them in full.

    Args:
        law: The law of the fit.
        form: Its form.
        points: The runs, as counted, with their unique tokens.
    """
    if law.fading_error is None or law.params_error is not None:
        return []
    both = fit_repetition(points, law.law, bent=form == "bent")
    if not _params_fade(both, len(points)):
        return []
    message = (
        f"excess parameters are worth less than they count (R_N* near {both.r_params:.2g}): the "
        "law, which counts them in full, is biased."
    )
    advice = "Fit without form='tied' and without delta: R_N* is then fitted too."
    return [Check("excess-parameters", "warn", message, advice)]


def joint_fit(fit: ParametricFit, law: RepetitionLaw, effective: Points) -> ParametricFit:
    """A fit in effective parameters and tokens, moved to the optimum of all parameters.

    Args:
        fit: Least squares of ln L at the N' and D' of `law`, which themselves depend on the law.
        law: The law with both constants fitted.
        effective: The runs in effective parameters and tokens.
    """
    r = np.log(law.law.loss(effective.N, effective.D) / effective.loss)
    return replace(
        fit,
        law=law.law,
        theta=theta_of(law.law, fit.form, fit.centre),
        objective=float(r @ r) / 2,
        residual_std=law.residual_std,
    )


def joint_spread(
    law: RepetitionLaw, points: Points, form: Form, *, num_draws: int, seed: int
) -> Spread:
    """The spread of all parameters; its vectors carry 1 / R_D* and 1 / R_N*.

    Args:
        law: The law with both constants fitted.
        form: Its form.
        points: The runs, as counted, with their unique tokens and clusters.
        num_draws: Number of bootstrap refits.
        seed: Seed of the draws.
    """
    search = Search.of(points, law.law, bent=form == "bent")
    point = search.point(law)
    return linear_spread(
        point,
        search.jacobian(point),
        search.misfit(point[None])[0],
        search.laws,
        form=form,
        clusters=points.clusters,
        num_draws=num_draws,
        seed=seed,
    )


def widen(
    spread: Spread, fit: ParametricFit, repetition: RepetitionLaw, points: Points, seed: int
) -> Spread:
    """The spread of a law, widened by the uncertainty of R_D*; its vectors carry 1 / R_D*.

    To first order the law moves by its slope along 1 / R_D* (found by refits on either side). That
    rate is independent of the law's error at a given rate.

    Args:
        spread: The spread with R_D* taken as known.
        fit: The fit.
        repetition: R_D* and its error.
        points: The runs with unique tokens; N as the law takes it, D as counted.
        seed: Seed of the draws.
    """
    rate, error = 1 / repetition.r_data, repetition.fading_error or 0.0
    slope = np.append(_slope(fit, rate, error, points), 1.0)
    V = error**2 * np.outer(slope, slope)
    V[:FADING, :FADING] += spread.covariance
    rng = np.random.default_rng(seed)
    draws = {}
    for name, laws in spread.draws.items():
        moved = np.hstack([laws, np.full((len(laws), 1), rate)])
        moved += error * rng.standard_normal((len(laws), 1)) * slope
        # Keep the moved draws possible: E not below zero unless it was, exponents within the
        # bounds of the search, and a fading rate of at least zero.
        moved[:, 0] = np.maximum(moved[:, 0], np.minimum(laws[:, 0], 0.0))
        moved[:, 3:5] = np.maximum(moved[:, 3:5], LOWER[3:5])
        moved[:, GAMMA] = np.clip(moved[:, GAMMA], LOWER[GAMMA], UPPER[GAMMA])
        moved[:, FADING] = np.maximum(moved[:, FADING], 0.0)
        draws[name] = moved
    return replace(spread, centre=np.append(spread.centre, rate), covariance=V, draws=draws)


def _slope(fit: ParametricFit, rate: float, error: float, points: Points) -> Array:
    """Derivatives of the law vector by 1 / R_D*, shape (6,)."""
    h = min(max(0.3 * error, 1e-4), 0.9 * rate)

    def vector(rate: float) -> Array:
        D = effective_tokens(points.D, points.unique_tokens, 1 / rate)
        return refit(fit, replace(points, D=D)).law.vector

    return (vector(rate + h) - vector(rate - h)) / (2 * h)


def _knows_data(law: RepetitionLaw) -> bool:
    """Whether the runs determine R_D*."""
    return _is_known(law.r_data, law.fading_error, R_DATA)


def _is_known(constant: float, error: float | None, published: float) -> bool:
    """Whether 1 / constant is known to half of the larger of itself and the published one."""
    return error is not None and error <= max(1 / published, 1 / constant) / 2


def _params_fade(law: RepetitionLaw, n: int) -> bool:
    """Whether excess parameters are clearly worth less than they count; n is the number of runs."""
    if law.r_params > AS_GOOD_AS_FULL or not _is_known(law.r_params, law.params_error, R_PARAMS):
        return False
    t = 1 / law.r_params / max(law.params_error or 0.0, 1e-300)
    dof = n - NUM_PARAMETERS - 1 if law.law.gamma == 1 else n - NUM_PARAMETERS - 2
    return bool(t_tail(t, max(dof, 1)) < LEVEL)


def _params_count_in_full(law: RepetitionLaw) -> bool:
    """Whether 1 / R_N* is clearly (by two standard errors) below the published value."""
    return 1 / law.r_params + 2 * (law.params_error or np.inf) < 1 / R_PARAMS
