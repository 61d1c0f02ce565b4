"""What a sweep says of its own repeated data, and what that leaves uncertain.

Where runs see their data more than once, the law holds in effective tokens D' (see `repetition`).
R_D* is fitted where the runs can tell the published fading from none; else the published constant
is taken. Parameters count in full in the fit: with R_N* = 5.31 the right half of every row of new
data would be bent too. A fitted R_D* widens every interval: laws then carry 1 / R_D* as column 5.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from flops_fit.errors import FitError
from flops_fit.laws.checks import Check
from flops_fit.laws.exclude import epochs
from flops_fit.laws.parametric import ParametricFit, ParametricLaw, refit
from flops_fit.laws.repetition import (
    LEAST_EPOCHS,
    R_DATA,
    RepetitionLaw,
    effective_tokens,
    fit_repetition,
)
from flops_fit.laws.solver import LOWER, Array
from flops_fit.laws.uncertainty import Spread

LEAST_RUNS, LEAST_REPEATED = 9, 4
LEVEL = 0.01


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
    N: Array, D: Array, loss: Array, U: Array, start: ParametricLaw, delta: float | None
) -> RepetitionLaw | None:
    """The data-constrained law with R_D* fitted; None where these runs do not determine it.

    That is where 1 / R_D* is not known to half of itself, or of the published one, if that is more.

    Args:
        N: Parameters of each run, shape (n,).
        D: Tokens seen, shape (n,).
        loss: Loss, positive, shape (n,).
        U: Unique tokens among them, shape (n,).
        start: A law to start from.
        delta: Huber's threshold; None for least squares.
    """
    if len(loss) < LEAST_RUNS or (D > LEAST_EPOCHS * U).sum() < LEAST_REPEATED:
        return None
    try:
        found = fit_repetition(N, D, loss, U, start, r_params=np.inf, delta=delta)
    except FitError:
        return None
    assert found.fading_error is not None
    known = found.fading_error <= max(1 / R_DATA, 1 / found.r_data) / 2
    return found if known else None


def check_parameters(law: RepetitionLaw, N: Array, D: Array, loss: Array, U: Array) -> list[Check]:
    """Parameters beyond what the unique tokens warrant that are worth less than they count.

    Args:
        law: The law with R_D* fitted and parameters in full.
        N: Parameters of each run, shape (n,).
        D: Tokens seen, shape (n,).
        loss: Loss, positive, shape (n,).
        U: Unique tokens among them, shape (n,).
    """
    dof = len(loss) - 7
    if law.fading_error is None or dof < 1 or law.residual_std < 1e-9:
        return []
    both = fit_repetition(N, D, loss, U, law.law)
    F = dof * ((law.residual_std / both.residual_std) ** 2 * (dof + 1) / dof - 1)
    if stats.f.sf(max(F, 0.0), 1, dof) > LEVEL:
        return []
    message = (
        f"excess parameters are worth less than they count (R_N* near {both.r_params:.2g}): the "
        "law, which takes them in full, is bent."
    )
    advice = "Fit both constants by flops_fit.laws.repetition.fit_repetition."
    return [Check("excess-parameters", "warn", message, advice)]


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
        refit(fit, N, effective_tokens(D, U, 1 / (rate + step)), loss).law.row[0]
        for step in (h, -h)
    ]
    return (ends[0] - ends[1]) / (2 * h)
