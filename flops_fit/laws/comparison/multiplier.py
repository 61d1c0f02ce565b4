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
        found = _first_below_zero(log_grid, along + grid.value)
        # The budgets around it at which the loss may be that of the first: not those far below,
        # where nothing is known.
        at = int(np.searchsorted(log_grid, found))
        fewest = _last_above_zero(log_grid[: at + 1], (along + grid.value - down)[: at + 1])
        beyond = slice(max(at - 1, 0), None)
        most = _first_below_zero(log_grid[beyond], (along + grid.value + up)[beyond])
        for column, log_other in zip(columns, (found, most, fewest), strict=True):
            column.append(math.exp(log_C[i] - log_other))
    value, low, high = (np.array(column) for column in columns)
    return Multiplier(value, np.minimum(low, value), np.maximum(high, value))


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
    return -math.inf if i == 0 else _between(x, curve, i - 1)


def _last_above_zero(x: Array, curve: Array) -> float:
    """Where a curve was above zero last: infinite if to its end, minus infinity if nowhere."""
    above = np.flatnonzero(curve > 0)
    if not len(above):
        return -math.inf
    i = int(above[-1])
    return math.inf if i == len(x) - 1 else _between(x, curve, i)


def _between(x: Array, curve: Array, i: int) -> float:
    """Where a line through two points of a curve, above and below zero, crosses it."""
    high, low = curve[i], curve[i + 1]
    share = high / (high - low) if np.isfinite([high, low]).all() else 1.0
    return float(x[i] + share * (x[i + 1] - x[i]))
