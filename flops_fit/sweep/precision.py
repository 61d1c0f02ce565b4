"""`Precision`: how wide the answer's intervals will be, and what would narrow them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from flops_fit.laws.design.simulation import SWEEPS, Addition, foresee
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.records import TRIAL_COLUMNS, Trial, to_frame
from flops_fit.report import plan_words
from flops_fit.sweep.grid import SweepPlan
from flops_fit.sweep.rows import FEW_STEPS, Rows


@dataclass(frozen=True, repr=False)
class Precision:
    """How wide the 95 % interval of N_opt will be.

    Attributes:
        table: A row a budget (the largest, and 10 and 100 times it): `compute_budget`,
            `extrapolation`, the assumed law's `num_params`, the median interval around it
            (`num_params_low num_params_high`), `factor` (half its width: N_opt is known to within
            this factor), `covered` (share of the simulated intervals that hold the truth) and
            `predicted` (share of the simulated sweeps in which a prediction is made, not withheld).
        additions: What might be added to the plan, the best first: `kind compute_budget sizes flops
            share` (of the plan's FLOPs), `narrower` (share by which the interval at ten times the
            largest budget narrows), `factor` (then), and `gain` (`narrower` over `share`).
        law: The law assumed.
        noise: Standard deviation of ln L from run to run assumed.
        num_sweeps: Sweeps simulated.
        seed: Of the simulation.
        size_param: Name of the size parameter.
    """

    table: pd.DataFrame
    additions: pd.DataFrame
    law: ParametricLaw
    noise: float
    num_sweeps: int
    seed: int
    size_param: str

    def __repr__(self) -> str:
        return "\n".join(plan_words.of_precision(self))

    def _repr_html_(self) -> str:
        return plan_words.precision_html(self)


def foresee_plan(
    plan: SweepPlan, *, noise: float, law: ParametricLaw | None, seed: int
) -> Precision:
    """See `SweepPlan.precision`.

    Raises:
        ArgumentError: An argument cannot work, or the grid cannot tell five parameters apart.
        FitError: In none of the simulated sweeps does a law stand.
    """
    own = [trial for trial in plan.trials if trial.lr_multiplier == 1]
    additions = possible_additions(plan.origin.rows, own) if plan.origin else []
    runs = to_frame(own, TRIAL_COLUMNS)
    told = foresee(runs, additions, law=law, noise=noise, num_sweeps=SWEEPS, seed=seed)
    return Precision(
        told.table, told.additions, told.law, noise, SWEEPS, seed, size_param=plan.size_param
    )


def possible_additions(rows: Rows, trials: Sequence[Trial]) -> list[Addition]:
    """Budgets above, below and between those planned, and a size beyond either end of each row.

    Only what can be trained: sizes that build, enough steps, data that lasts.

    Args:
        rows: What the trials of the sweep share.
        trials: Those planned, at the recipe's own rate.
    """
    by_budget: dict[float, list[Trial]] = {}
    for trial in trials:
        by_budget.setdefault(trial.compute_budget, []).append(trial)
    budgets = [_addition("budget", row) for row in _more_rows(rows, sorted(by_budget))]
    sizes = [
        _addition("size", [trial]) for row in by_budget.values() for trial in _beyond(rows, row)
    ]
    return budgets + sizes


def _more_rows(rows: Rows, budgets: Sequence[float]) -> Iterator[list[Trial]]:
    ratio = (budgets[-1] / budgets[0]) ** (1 / (len(budgets) - 1)) if len(budgets) > 1 else 10**0.5
    between = [math.sqrt(low * high) for low, high in pairwise(budgets)]
    for budget in (budgets[0] / ratio, *between, budgets[-1] * ratio):
        row, _ = rows.row(float(f"{budget:.3g}"))
        if rows.carries(row):
            yield row


def _beyond(rows: Rows, row: Sequence[Trial]) -> Iterator[Trial]:
    """A size below and one above, as far off as those of the row are from each other."""
    if rows.finder.given is not None or len(row) < 2:
        return
    ratio = (row[-1].num_params / row[0].num_params) ** (1 / (len(row) - 1))
    few = min(FEW_STEPS, *(trial.steps for trial in row))
    for end, factor in ((row[0], 1 / ratio), (row[-1], ratio)):
        cost = rows.finder.nearest_cost(end.num_params * factor)
        further = (cost.num_params - end.num_params) * (factor - 1) > 0
        trial = rows.trial(end.compute_budget, cost, end.size_index)
        if further and trial.steps >= few and rows.serves(trial):
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
