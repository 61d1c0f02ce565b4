"""`Precision`: how wide the intervals of the answer will be, and what would narrow them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import pandas as pd

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.design.simulation import (
    SWEEPS,
    expected_intervals,
    require_sound,
    usual_noise,
)
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.records import TRIAL_COLUMNS, to_frame
from flops_fit.report import plan_text
from flops_fit.sweep.forecast.additions import possible_additions
from flops_fit.sweep.plan.grid import Grid


@dataclass(frozen=True, repr=False)
class Precision:
    """Expected width of the 95 % interval of N_opt, from simulated sweeps.

    Attributes:
        table: One row per budget (the largest, and 10 and 100 times it): `compute_budget`,
            `extrapolation`, `num_params` (N_opt of the assumed law), the median interval around it
            (`num_params_low num_params_high`), `factor` (half its width: N_opt is known to within
            this factor), `covered` (share of the simulated intervals that contain the true value)
            and `predicted` (share of the simulated sweeps that make a prediction).
        additions: What could be added to the plan, the best first: `kind compute_budget sizes flops
            share` (of the plan's FLOPs), `narrower` (share by which the interval at ten times the
            largest budget narrows), `factor` (with the addition), and `gain` (`narrower` over
            `share`).
        law: The assumed law.
        noise: Assumed standard deviation of ln L between runs.
        num_sweeps: Number of simulated sweeps.
        seed: Seed of the simulation.
        size_param: Name of the size parameter.
        is_of_first: Whether more trials follow those simulated, towards a goal.
    """

    table: pd.DataFrame
    additions: pd.DataFrame
    law: ParametricLaw
    noise: float
    num_sweeps: int
    seed: int
    size_param: str
    is_of_first: bool = False

    def __repr__(self) -> str:
        return "\n".join(plan_text.of_precision(self))

    def _repr_html_(self) -> str:
        return plan_text.precision_html(self)


def expected_intervals_of_plan(
    plan: Grid, *, noise: float | None, law: ParametricLaw | None, seed: int
) -> Precision:
    """Implements `SweepPlan.precision`; see there.

    Raises:
        ArgumentError: An argument is invalid, or the grid cannot determine five parameters.
        FitError: No simulated sweep yields a law.
    """
    # The fits use the best learning rate only, so each size counts once.
    trials = [trial for trial in plan.trials if trial.lr_multiplier == 1]
    additions = possible_additions(plan.origin.rows, trials) if plan.origin else []
    if noise is None:
        noise = usual_noise(statistics.median(trial.num_params for trial in trials))
    require_sound(law, noise, SWEEPS)
    try:
        expected = expected_intervals(
            to_frame(trials, TRIAL_COLUMNS),
            additions,
            law=law,
            noise=noise,
            num_sweeps=SWEEPS,
            seed=seed,
        )
    except (ArgumentError, FitError) as error:
        if plan.goal is None:
            raise
        raise type(error)(
            f"the first {len(trials)} trials alone determine no law; the sweep goes on from them "
            "towards its goal, and .course() foretells how precise its answer will be"
        ) from error
    return Precision(
        table=expected.table,
        additions=expected.additions,
        law=expected.law,
        noise=noise,
        num_sweeps=SWEEPS,
        seed=seed,
        size_param=plan.size_param,
        is_of_first=plan.goal is not None,
    )
