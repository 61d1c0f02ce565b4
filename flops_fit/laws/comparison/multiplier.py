"""The compute multiplier: how much less compute one sweep needs for the loss of another.

At a budget C of the first sweep it is C / C', where C' is the compute with which the second sweep
reaches the same loss: over 1, the second is better. C' is found where the loss of the first at C'
and the difference there add up to that loss. Its interval is where they might, by the error of
the difference, and of how the loss of the first changes between C' and C.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flops_fit.laws.comparison.difference import Difference
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.frontier import frontier

# Budgets per decade of the grid on which C' is looked for.
PER_DECADE = 12


@dataclass(frozen=True)
class Multiplier:
    """C / C' at k budgets with its 95 % interval, shape (k,) each.

    0 stands for a loss that the second sweep does not reach within the grid, and infinity for one
    that it reaches with less than the grid has.
    """

    value: Array
    low: Array
    high: Array


def multiplier_at(
    first: Findings, C: Array, grid: Difference, bytes_per_token: float = 1.0
) -> Multiplier:
    """The compute multiplier at some budgets.

    Args:
        first: The laws of the first sweep.
        C: Budgets in FLOPs, shape (k,).
        grid: The difference of the losses on a grid of budgets, ascending, far around C.
        bytes_per_token: What the losses of the first were divided by.
    """
    log_C, log_grid = np.log(C), np.log(grid.C)
    target = np.interp(log_C, log_grid, grid.first)
    columns: list[list[float]] = [[], [], []]
    for i in range(len(C)):
        along = grid.first - target[i]
        slope = _error_of_change(first, grid.C, C[i]) / bytes_per_token
        down = np.hypot(grid.value - grid.low, slope)
        up = np.hypot(grid.high - grid.value, slope)
        curves = (along + grid.value, along + grid.value + up, along + grid.value - down)
        for column, curve in zip(columns, curves, strict=True):
            column.append(math.exp(log_C[i] - _first_below_zero(log_grid, curve)))
    value, low, high = (np.array(column) for column in columns)
    return Multiplier(value, low, high)


def _error_of_change(findings: Findings, grid: Array, C: float) -> Array:
    """Half-width of the interval of the change of the loss from C to each budget, shape (k,)."""

    def change(laws: Array) -> Array:
        loss = frontier(laws, np.append(grid, C), findings.cost)[2]
        return np.asarray(loss[:, :-1] - loss[:, -1:])

    return findings.parameter_error(change)


def _first_below_zero(x: Array, curve: Array) -> float:
    """Where a falling curve crosses zero; infinite beyond the ends."""
    below = np.flatnonzero(~(curve > 0))
    if not len(below):
        return math.inf
    i = int(below[0])
    if i == 0:
        return -math.inf
    high, low = curve[i - 1], curve[i]
    share = high / (high - low) if np.isfinite([high, low]).all() else 1.0
    return float(x[i - 1] + share * (x[i] - x[i - 1]))
