"""`Ladder`: budgets that make a sound sweep below a largest budget, with all that it would train.

A sound sweep has at least four budgets over a decade, better five over two. Each has sizes on both
sides of its expected optimum, and data enough for them. Trials have 200 steps or more, better
1,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flops_fit.laws.checks.of_runs import FEW_BUDGETS, SHORT_SPAN
from flops_fit.laws.model.recipe_law import ENOUGH_STEPS, FEW_STEPS
from flops_fit.records import Trial
from flops_fit.sweep.pilot.places import plan_pilot
from flops_fit.sweep.plan.advice import is_planned
from flops_fit.sweep.plan.isoflop_row import IsoflopRows

MOST_DECADES, LEAST_DECADES = 2.0, 1.0
_PER_DECADE = 4  # spans tried


@dataclass(frozen=True)
class Ladder:
    """Budgets in FLOPs, ascending, and their trials.

    Attributes:
        budgets: In FLOPs, to two digits.
        trials: The trials of the grid.
        expected: Trials like those of pilot and check.
    """

    budgets: tuple[float, ...]
    trials: tuple[Trial, ...]
    expected: tuple[Trial, ...]

    @property
    def with_expected(self) -> tuple[Trial, ...]:
        """All that is trained, in this order."""
        return (*self.expected, *self.trials)

    @property
    def span(self) -> float:
        """Factor between the smallest and the largest budget."""
        return self.budgets[-1] / self.budgets[0]

    @property
    def least_steps(self) -> int:
        """Steps of the shortest trial of the grid."""
        return min(trial.steps for trial in self.trials)


def ladder_below(rows: IsoflopRows, top: float) -> Ladder | None:
    """The best ladder up to a budget; None if none spans a decade.

    Args:
        rows: The rows of the sweep.
        top: The largest budget, in FLOPs.
    """
    for decades, least_steps in _preferred():
        budgets = _budgets(top, decades)
        if all(_is_sound(rows, budget, least_steps) for budget in budgets):
            return _ladder(rows, budgets)
    return None


def _preferred() -> Iterator[tuple[float, int]]:
    """Spans in decades and least steps of a trial, the best first."""
    spans = np.linspace(
        MOST_DECADES, LEAST_DECADES, round((MOST_DECADES - LEAST_DECADES) * _PER_DECADE) + 1
    )
    wide = [float(span) for span in spans if 10**span >= SHORT_SPAN]
    yield from ((span, ENOUGH_STEPS) for span in wide)
    yield from ((float(span), FEW_STEPS) for span in spans)


def _budgets(top: float, decades: float) -> tuple[float, ...]:
    count = FEW_BUDGETS + (10**decades > 1.5 * SHORT_SPAN)
    return tuple(float(f"{C:.2g}") for C in np.geomspace(top / 10**decades, top, count))


def _is_sound(rows: IsoflopRows, budget: float, least_steps: int) -> bool:
    row, _ = rows.row(budget)
    return min((t.steps for t in row), default=0) >= least_steps and is_planned(rows, budget)


def _ladder(rows: IsoflopRows, budgets: tuple[float, ...]) -> Ladder:
    trials = [trial for budget in budgets for trial in rows.row(budget)[0]]
    pilot = plan_pilot(rows, trials)
    at_rates = [v for t in trials for v in rows.at_rates(t, rows.recipe.lr_multipliers)]
    return Ladder(budgets, tuple(at_rates), pilot.expected if pilot else ())
