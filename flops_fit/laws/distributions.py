"""Quantiles and tails of the distributions in use, by `scipy.special`.

`scipy.stats` has them too, but is slow to import: that took a third of what importing `fit` took.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

Array = npt.NDArray[np.float64]


def normal_quantile(p: Any) -> Any:
    """Where a standard normal variable lies below with probability p."""
    return special.ndtri(p)


def normal_log_mass(z: Any) -> Any:
    """Ln of the probability that a standard normal variable lies below z."""
    return special.log_ndtr(z)


def t_quantile(p: float, dof: float) -> float:
    """Where Student's t lies below with probability p."""
    return float(special.stdtrit(dof, p))


def t_tail(t: float, dof: float) -> float:
    """The probability that Student's t lies above a value."""
    return float(special.stdtr(dof, -t))


def f_quantile(p: float, numerator_dof: float, denominator_dof: float) -> float:
    """Where F lies below with probability p."""
    return float(special.fdtri(numerator_dof, denominator_dof, p))


def f_tail(F: float, numerator_dof: float, denominator_dof: float) -> float:
    """The probability that F lies above a value."""
    return float(special.fdtrc(numerator_dof, denominator_dof, max(F, 0.0)))


def chi2_quantile(p: float, dof: float) -> float:
    """Where chi-squared lies below with probability p."""
    return float(special.chdtri(dof, 1 - p))


def ranks(values: Array) -> Array:
    """Ranks from 1 up; equal values share the mean of theirs."""
    return np.asarray(pd.Series(values).rank(), float)


def correlation(x: Array, y: Array) -> tuple[float, float]:
    """Pearson's correlation, and how often chance gives one as large: the two-sided p.

    Both are NaN if one of the two does not vary. Of ranks it is Spearman's.
    """
    x, y = x - np.mean(x), y - np.mean(y)
    length = float(np.sqrt((x @ x) * (y @ y)))
    if length == 0 or len(x) < 3:
        return np.nan, np.nan
    r = float(np.clip(x @ y / length, -1, 1))
    dof = len(x) - 2
    rest = 1 - r * r
    return r, 2 * t_tail(abs(r) * np.sqrt(dof / rest), dof) if rest else 0.0
