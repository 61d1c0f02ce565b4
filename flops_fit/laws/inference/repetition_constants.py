"""What a sweep says of its own repeated data, and what that leaves uncertain.

Where runs see their data more than once, the law holds in effective tokens D' (see `repetition`).
R_D* is fitted where the runs can tell the published fading from none; else the published constant
is taken. R_N* is fitted, with the law and R_D* at once, where the runs show that excess parameters
fade; else parameters count in full in the fit: with R_N* = 5.31 the right half of every row of new
data would be bent too. Fitted constants widen every interval: see `Spread.centre`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from flops_fit.errors import FitError
from flops_fit.laws.check import Check
from flops_fit.laws.fitting.newton import LOWER
from flops_fit.laws.fitting.parametric import ParametricFit, refit
from flops_fit.laws.fitting.repetition import LEAST_EPOCHS, Search, fit_repetition
from flops_fit.laws.inference.bootstrap import linear_spread
from flops_fit.laws.inference.intervals import Spread
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.repetition_law import R_DATA, R_PARAMS, RepetitionLaw, effective_tokens
from flops_fit.laws.runs.exclusions import epochs

LEAST_RUNS, LEAST_REPEATED = 9, 4
LEVEL = 0.01
AS_GOOD_AS_FULL = 1e3


def unique_tokens(runs: pd.DataFrame) -> Array | None:
    """Unique tokens of each run, shape (n,), from `unique_tokens` or `epochs`.

    None where no run is known to see its data more than once.
    """
    D, times = runs["num_tokens"].to_numpy(float), epochs(runs)
    if not (times > 1).any():
        return None
    given = D / np.fmax(times, 1.0)
    if "unique_tokens" in runs:
        given = pd.to_numeric(runs["unique_tokens"], errors="coerce").to_numpy(float)
    return np.fmin(given, D)


def measure_repetition(
    N: Array,
    D: Array,
    loss: Array,
    U: Array,
    start: ParametricLaw,
    delta: float | None,
    *,
    both: bool = True,
) -> RepetitionLaw | None:
    """The data-constrained law with R_D* fitted; None where these runs do not determine it.

    That is where 1 / R_D* is not known to half of itself, or of the published one, if that is more.
    R_N* is fitted too where 1 / R_N* is known as well as that, and clearly over zero; it is
    infinite where it is clearly under the published one, and else published: parameters count in
    full in the fit in both cases.

    Args:
        N: Parameters of each run, shape (n,).
        D: Tokens seen, shape (n,).
        loss: Loss, positive, shape (n,).
        U: Unique tokens among them, shape (n,).
        start: A law to start from.
        delta: Huber's threshold; None for least squares.
        both: Whether R_N* may be fitted.
    """
    if len(loss) < LEAST_RUNS or (D > LEAST_EPOCHS * U).sum() < LEAST_REPEATED:
        return None
    try:
        joint = fit_repetition(N, D, loss, U, start, delta=delta) if both else None
        if joint is not None and _knows_data(joint) and _fades(joint, len(loss)):
            return joint
        full = fit_repetition(N, D, loss, U, start, r_params=np.inf, delta=delta)
    except FitError:
        return None
    if not _knows_data(full):
        return None
    return full if joint is not None and _in_full(joint) else replace(full, r_params=R_PARAMS)


def _knows_data(law: RepetitionLaw) -> bool:
    return _is_known(law.r_data, law.fading_error, R_DATA)


def _in_full(law: RepetitionLaw) -> bool:
    """Whether the runs show that excess parameters fade less than published."""
    return 1 / law.r_params + 2 * (law.params_error or np.inf) < 1 / R_PARAMS


def _is_known(constant: float, error: float | None, published: float) -> bool:
    return error is not None and error <= max(1 / published, 1 / constant) / 2


def _fades(law: RepetitionLaw, n: int) -> bool:
    """Whether excess parameters are clearly worth less than they count."""
    if law.r_params > AS_GOOD_AS_FULL or not _is_known(law.r_params, law.params_error, R_PARAMS):
        return False
    t = 1 / law.r_params / max(law.params_error or 0.0, 1e-300)
    return bool(stats.t.sf(t, max(n - 7, 1)) < LEVEL)


def check_parameters(law: RepetitionLaw, N: Array, D: Array, loss: Array, U: Array) -> list[Check]:
    """Excess parameters that are worth less than they count, in a fit that takes them in full.

    Args:
        law: The law of the fit.
        N: Parameters of each run, shape (n,).
        D: Tokens seen, shape (n,).
        loss: Loss, positive, shape (n,).
        U: Unique tokens among them, shape (n,).
    """
    if law.fading_error is None or law.params_error is not None:
        return []
    both = fit_repetition(N, D, loss, U, law.law)
    if not _fades(both, len(loss)):
        return []
    message = (
        f"excess parameters are worth less than they count (R_N* near {both.r_params:.2g}): the "
        "law, which takes them in full, is bent."
    )
    advice = "Fit without form='tied' and without delta: R_N* is then fitted too."
    return [Check("excess-parameters", "warn", message, advice)]


def joint_fit(
    fit: ParametricFit, law: RepetitionLaw, N: Array, D: Array, loss: Array
) -> ParametricFit:
    """A fit in effective parameters and tokens moved to the optimum of all seven parameters.

    Args:
        fit: Least squares of ln L at the N' and D' of `law`, which themselves hang on the law.
        law: The law with both constants fitted.
        N: Effective parameters, shape (n,).
        D: Effective tokens, shape (n,).
        loss: Loss, shape (n,).
    """
    E, log_A, log_B, alpha, beta = law.law.vector.tolist()
    mx, my, scale, _ = fit.centre
    theta = (np.log(E) - scale, log_A - scale - alpha * mx, log_B - scale - beta * my, alpha, beta)
    r = np.log(law.law.loss(N, D) / loss)
    return replace(
        fit,
        law=law.law,
        theta=tuple(float(value) for value in theta),
        objective=float(r @ r) / 2,
        residual_std=law.residual_std,
    )


def joint_spread(
    law: RepetitionLaw,
    runs: tuple[Array, Array, Array, Array],
    *,
    clusters: np.ndarray | None,
    num_draws: int,
    seed: int,
) -> Spread:
    """The spread of all seven parameters: rows get the columns 1 / R_D* and 1 / R_N*.

    Args:
        law: The law with both constants fitted.
        runs: N, D, loss and unique tokens of the runs, shape (n,) each.
        clusters: Label of the group whose error each run shares, shape (n,); None for independent.
        num_draws: Bootstrap refits.
        seed: Seed of the draws.
    """
    search = Search.of(*runs, law.law)
    point = search.point(law)
    return linear_spread(
        point,
        search.jacobian(point),
        search.misfit(point[None])[0],
        search.laws,
        clusters=clusters,
        num_draws=num_draws,
        seed=seed,
    )


def widen(
    spread: Spread,
    fit: ParametricFit,
    repetition: RepetitionLaw,
    runs: tuple[Array, Array, Array, Array],
    seed: int,
) -> Spread:
    """The spread of a law, with that of the R_D* it was fitted with: rows get a column 1 / R_D*.

    To first order theta moves by its slope along 1 / R_D* (found by fitting again on either side),
    and that rate is independent of theta's own error at a given rate.

    Args:
        spread: Of the fit, with R_D* taken as known.
        fit: The fit.
        repetition: R_D* and its error.
        runs: N, D, loss and unique tokens of the runs, shape (n,) each.
        seed: Seed of the draws.
    """
    rate, error = 1 / repetition.r_data, repetition.fading_error or 0.0
    slope = np.append(_slope(fit, rate, error, runs), 1.0)
    V = error**2 * np.outer(slope, slope)
    V[:5, :5] += spread.covariance
    rng = np.random.default_rng(seed)
    draws = {}
    for name, rows in spread.draws.items():
        moved = np.hstack([rows, np.full((len(rows), 1), rate)])
        moved += error * rng.standard_normal((len(rows), 1)) * slope
        moved[:, 0] = np.maximum(moved[:, 0], np.minimum(rows[:, 0], 0.0))
        moved[:, 3:5] = np.maximum(moved[:, 3:5], LOWER[3:])
        moved[:, 5] = np.maximum(moved[:, 5], 0.0)
        draws[name] = moved
    return replace(spread, centre=np.append(spread.centre, rate), covariance=V, draws=draws)


def _slope(
    fit: ParametricFit, rate: float, error: float, runs: tuple[Array, Array, Array, Array]
) -> Array:
    """Derivatives of (E, ln A, ln B, alpha, beta) by 1 / R_D*, shape (5,)."""
    N, D, loss, U = runs
    h = min(max(0.3 * error, 1e-4), 0.9 * rate)
    ends = [
        refit(fit, N, effective_tokens(D, U, 1 / (rate + step)), loss).law.vector
        for step in (h, -h)
    ]
    return (ends[0] - ends[1]) / (2 * h)
