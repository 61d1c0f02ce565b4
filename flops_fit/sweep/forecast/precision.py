"""`Precision`: how wide the answer's intervals will be, and what would narrow them."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from flops_fit.laws.design.simulation import SWEEPS, expected_intervals
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.records import TRIAL_COLUMNS, to_frame
from flops_fit.report import plan_text
from flops_fit.sweep.forecast.additions import possible_additions
from flops_fit.sweep.plan.grid import Grid


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
        return "\n".join(plan_text.of_precision(self))

    def _repr_html_(self) -> str:
        return plan_text.precision_html(self)


def expected_intervals_of_plan(
    plan: Grid, *, noise: float, law: ParametricLaw | None, seed: int
) -> Precision:
    """See `SweepPlan.precision`.

    Raises:
        ArgumentError: An argument cannot work, or the grid cannot tell five parameters apart.
        FitError: In none of the simulated sweeps does a law stand.
    """
    own = [trial for trial in plan.trials if trial.lr_multiplier == 1]
    additions = possible_additions(plan.origin.rows, own) if plan.origin else []
    runs = to_frame(own, TRIAL_COLUMNS)
    told = expected_intervals(runs, additions, law=law, noise=noise, num_sweeps=SWEEPS, seed=seed)
    return Precision(
        told.table, told.additions, told.law, noise, SWEEPS, seed, size_param=plan.size_param
    )
