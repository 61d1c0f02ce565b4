"""What could be added to a plan to make its answer more precise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from flops_fit.laws.design.simulation import Addition
from flops_fit.records import Trial
from flops_fit.sweep.plan.isoflop_row import FEW_STEPS, IsoflopRows


def possible_additions(rows: IsoflopRows, trials: Sequence[Trial]) -> list[Addition]:
    """Budgets above, below and between those planned, and a size beyond either end of each row.

    Only what can be trained: sizes that build, with enough steps and enough data.

    Args:
        rows: The rows of the sweep.
        trials: The trials planned, at the recipe's own learning rate.
    """
    by_budget: dict[float, list[Trial]] = {}
    for trial in trials:
        by_budget.setdefault(trial.compute_budget, []).append(trial)
    budgets = [_addition("budget", row) for row in _new_rows(rows, sorted(by_budget))]
    sizes = [
        _addition("size", [trial]) for row in by_budget.values() for trial in _beyond(rows, row)
    ]
    return budgets + sizes


def _new_rows(rows: IsoflopRows, budgets: Sequence[float]) -> Iterator[list[Trial]]:
    ratio = (budgets[-1] / budgets[0]) ** (1 / (len(budgets) - 1)) if len(budgets) > 1 else 10**0.5
    between = [math.sqrt(low * high) for low, high in pairwise(budgets)]
    for budget in (budgets[0] / ratio, *between, budgets[-1] * ratio):
        row, _ = rows.row(float(f"{budget:.3g}"))
        if rows.can_show_minimum(row):
            yield row


def _beyond(rows: IsoflopRows, row: Sequence[Trial]) -> Iterator[Trial]:
    """A size below and one above a row, at the spacing of its sizes."""
    if rows.finder.given is not None or len(row) < 2:
        return
    ratio = (row[-1].num_params / row[0].num_params) ** (1 / (len(row) - 1))
    # The row itself may have fewer steps than recommended; then as few will do.
    min_steps = min(FEW_STEPS, *(trial.steps for trial in row))
    for end, factor in ((row[0], 1 / ratio), (row[-1], ratio)):
        cost = rows.finder.nearest_cost(end.num_params * factor)
        outside = (cost.num_params - end.num_params) * (factor - 1) > 0
        trial = rows.trial(end.compute_budget, cost, end.size_index)
        if outside and trial.steps >= min_steps and rows.is_feasible(trial):
            yield trial


def _addition(kind: str, trials: Sequence[Trial]) -> Addition:
    return Addition(
        kind=kind,
        compute_budget=trials[0].compute_budget,
        sizes=tuple(trial.size for trial in trials),
        N=np.array([float(trial.num_params) for trial in trials]),
        D=np.array([float(trial.num_tokens) for trial in trials]),
        flops=sum(trial.flops for trial in trials),
    )
