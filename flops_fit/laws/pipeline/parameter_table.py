"""The table of the law's parameters, with 95 % intervals and standard errors."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from flops_fit.laws.fitting.parametric import ParametricFit
from flops_fit.laws.inference.intervals import Spread, hull, log_parameters
from flops_fit.laws.model.arrays import FADING, PARAMS_FADING, Array
from flops_fit.laws.model.repetition_law import RepetitionLaw

PARAMETERS = ("E", "A", "B", "alpha", "beta", "gamma", "a")
COLUMNS = ("value", "low", "high", "standard_error")


def parameter_table(
    fit: ParametricFit | None,
    spreads: tuple[Spread, ...],
    repetition: RepetitionLaw | None = None,
) -> pd.DataFrame:
    """Value, 95 % interval and standard error of each parameter.

    Args:
        fit: The headline fit; None if there is none, in which case the table holds NaN.
        spreads: Uncertainty of the headline.
        repetition: The law of repeated data, whose fitted constants are added.

    Returns:
        One row for each of E, A, B, alpha and beta, for gamma if the law is bent, for a, and for
        R_D* and R_N* if they were fitted.
    """
    names, columns = list(PARAMETERS), list(COLUMNS)
    if fit is None or not spreads:
        return pd.DataFrame(np.nan, index=names, columns=columns).drop(index="gamma")
    low, high = hull(spreads, log_parameters)
    error = np.max([spread.standard_error(log_parameters) for spread in spreads], axis=0)
    law = fit.law
    value = np.array([law.E, law.A, law.B, law.alpha, law.beta, law.gamma, law.a])
    # From ln A and ln B to A and B.
    with np.errstate(over="ignore"):
        low[1:3] = np.exp(low[1:3])
        high[1:3] = np.exp(high[1:3])
        error[1:3] = error[1:3] * value[1:3]
    # E is not negative, unless losses were; exponents are not; and a is at most 1.
    if fit.centre[3] == 0:
        low[0] = max(low[0], 0.0)
    low[3:] = np.maximum(low[3:], 0.0)
    high[-1] = min(high[-1], 1.0)
    # Rounding may part a value from the end that it is.
    low, high = np.fmin(low, value), np.fmax(high, value)
    table = pd.DataFrame(np.stack([value, low, high, error], axis=1), names, columns)
    if fit.form != "bent":
        table = table.drop(index="gamma")
    if repetition is not None and repetition.fading_error is not None:
        table.loc["R_D*"] = _constant(spreads, repetition.r_data, FADING)
    if repetition is not None and repetition.params_error is not None:
        table.loc["R_N*"] = _constant(spreads, repetition.r_params, PARAMS_FADING)
    return table


def _constant(
    spreads: tuple[Spread, ...], value: float, column: int
) -> tuple[float, float, float, float]:
    """Value, interval and standard error of R_D* or R_N*, from the draws of its inverse.

    The high end is infinite if the runs allow that nothing fades.
    """

    def rate(laws: Array) -> Array:
        return laws[:, column : column + 1]

    low, high = (float(end[0]) for end in hull(spreads, rate))
    error = max(float(spread.standard_error(rate)[0]) for spread in spreads)
    largest = 1 / low if low > 0 else math.inf
    return value, min(1 / high, value), max(largest, value), error * value**2
