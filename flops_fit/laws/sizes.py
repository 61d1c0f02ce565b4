"""The value of the user's size parameter that gives a model of N parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.records import Size


def size_for(runs: pd.DataFrame, num_params: float) -> Size | None:
    """Log-log interpolation over recorded (size, N) pairs, continued by the end slopes.

    Whole sizes give a multiple of their `step_of`; sizes that are not numbers give the nearest
    recorded one; None where no size is recorded.

    Args:
        runs: Table of runs with `size` and `num_params`.
        num_params: N wanted.
    """
    known = runs.loc[runs["size"].notna(), ["size", "num_params"]].drop_duplicates()
    known = known[known["num_params"] > 0].sort_values("num_params")
    if known.empty or not np.isfinite(num_params) or num_params <= 0:
        return None
    sizes, x = known["size"].tolist(), np.log(known["num_params"].to_numpy(float))
    target = np.log(num_params)
    if not all(_is_number(size) for size in sizes) or len(set(sizes)) < 2 or len(set(x)) < 2:
        return _native(sizes[int(np.abs(x - target).argmin())])
    value = float(np.exp(_extend(target, x, np.log(np.array(sizes, float)))))
    step = step_of(sizes)
    return max(step, round(value / step) * step) if step else value


def step_of(sizes: Sequence[Any]) -> int:
    """What divides all sizes, as heads divide widths; 0 where some are not whole numbers."""
    whole = [int(size) for size in sizes if _is_number(size) and float(size).is_integer()]
    return math.gcd(*whole) if len(whole) == len(sizes) else 0


def _is_number(size: object) -> bool:
    if isinstance(size, bool) or not isinstance(size, int | float | np.number):
        return False
    return bool(np.isfinite(size) and size > 0)


def _native(size: Any) -> Size:
    native: Size = size.item() if isinstance(size, np.generic) else size
    return native


def _extend(target: float, x: np.ndarray, y: np.ndarray) -> float:
    """Linear interpolation, continued by the slope of the nearest two points."""
    x, first = np.unique(x, return_index=True)
    y = y[first]
    i = int(np.clip(np.searchsorted(x, target) - 1, 0, len(x) - 2))
    return float(y[i] + (target - x[i]) * (y[i + 1] - y[i]) / (x[i + 1] - x[i]))
