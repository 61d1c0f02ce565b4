"""The value of the user's size parameter for a model of N parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.polynomial import Polynomial

from flops_fit.laws.findings import Findings
from flops_fit.records import Size

# By degree, how close to all pairs a polynomial must pass, as a share of N. N is linear in a depth,
# which counts whole layers; a straight line must fit exactly, because a short piece of any curve is
# almost straight. N is quadratic in a width, which may be rounded.
NEAR = {1: 1e-6, 2: 1e-2}


def size_to_build(findings: Findings, num_params: float) -> Size | None:
    """The size value for a model of N parameters.

    It is found by building models where the user's class is at hand (`Findings.build_size`), and
    otherwise, or where that fails, from the sizes of the runs.

    Args:
        findings: The fitted laws.
        num_params: N wanted.

    Returns:
        The size value; None where the runs record no size.
    """
    built = findings.build_size(num_params) if findings.build_size else None
    return built if built is not None else size_for(findings.runs, num_params)


def size_for(runs: pd.DataFrame, num_params: float) -> Size | None:
    """The size for N parameters, interpolated between the recorded (size, N) pairs.

    Interpolation is log-log, extended with the end slopes. Above the recorded sizes a polynomial is
    used instead if the pairs lie on one: N is of second degree in a width and of first degree in a
    depth (Kaplan et al. 2020, table 1).

    Args:
        runs: Table of runs with `size` and `num_params`.
        num_params: N wanted.

    Returns:
        A multiple of `step_of` the sizes, if these are whole numbers; a float, if they are other
        numbers; the recorded size with the nearest N, if they are not numbers or all alike; None if
        no size is recorded.
    """
    known = runs.loc[runs["size"].notna(), ["size", "num_params"]].drop_duplicates()
    known = known[known["num_params"] > 0].sort_values("num_params")
    if known.empty or not np.isfinite(num_params) or num_params <= 0:
        return None
    sizes, x = known["size"].tolist(), np.log(known["num_params"].to_numpy(float))
    target = np.log(num_params)
    if not all(_is_number(size) for size in sizes) or len(set(sizes)) < 2 or len(set(x)) < 2:
        return _native(sizes[int(np.abs(x - target).argmin())])
    root = _root(np.array(sizes, float), np.exp(x), num_params) if target > x[-1] else None
    value = root or float(np.exp(_extend(target, x, np.log(np.array(sizes, float)))))
    step = step_of(sizes)
    return max(step, round(value / step) * step) if step else value


def step_of(sizes: Sequence[Any]) -> int:
    """The greatest common divisor of the sizes; 0 if some are not whole numbers.

    Attention heads, for example, must divide a width.
    """
    whole = [int(size) for size in sizes if _is_number(size) and float(size).is_integer()]
    return math.gcd(*whole) if len(whole) == len(sizes) else 0


def _root(sizes: np.ndarray, num_params: np.ndarray, target: float) -> float | None:
    """The size at which the polynomial of lowest degree through the pairs reaches a target N.

    None if no polynomial fits, or if it does not reach the target.
    """
    for degree, near in NEAR.items():
        if len(np.unique(sizes)) < degree + 2:
            # Any polynomial passes through degree + 1 pairs: that would prove nothing.
            return None
        through = Polynomial.fit(sizes, num_params, degree, w=1 / num_params)
        if np.max(np.abs(through(sizes) / num_params - 1)) < near:
            roots = (through - target).roots()
            real = roots.real[np.isreal(roots) & (roots.real > 0)]
            return float(real.max()) if len(real) and through.convert().coef[-1] > 0 else None
    return None


def _is_number(size: object) -> bool:
    """Whether a size is a positive, finite number."""
    if isinstance(size, bool) or not isinstance(size, int | float | np.number):
        return False
    return bool(np.isfinite(size) and size > 0)


def _native(size: Any) -> Size:
    """A NumPy scalar as a Python one."""
    native: Size = size.item() if isinstance(size, np.generic) else size
    return native


def _extend(target: float, x: np.ndarray, y: np.ndarray) -> float:
    """Linear interpolation, extended with the slope of the nearest two points."""
    x, first = np.unique(x, return_index=True)
    y = y[first]
    i = int(np.clip(np.searchsorted(x, target) - 1, 0, len(x) - 2))
    return float(y[i] + (target - x[i]) * (y[i + 1] - y[i]) / (x[i + 1] - x[i]))
