"""`Rounds`: how a sweep with a goal grows, round by round, until the answer is precise enough.

Each round fits the runs so far, and `laws.design.rounds` decides what comes next. It is a function
of the runs alone, so that a sweep that was interrupted goes on; trials that were begun come first.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flops_fit.display.number_text import flops
from flops_fit.laws.design.candidates import expected_optima
from flops_fit.laws.design.course import NO_LAW
from flops_fit.laws.design.goal import Goal
from flops_fit.laws.design.rounds import Reached, decide, fit_round, in_words
from flops_fit.laws.design.search import SIZES_PER_ROW
from flops_fit.records import RUN_COLUMNS, TRIAL_COLUMNS, Run, Trial, to_frame
from flops_fit.sweep.growth.points import possible_trials
from flops_fit.sweep.plan.isoflop_row import IsoflopRows, plural
from flops_fit.sweep.plan.planner import first_row


@dataclass(frozen=True)
class Round:
    """What a round asks for.

    Attributes:
        goal: What it works towards.
        reached: How precise the answer was before.
        message: For the user.
        trials: The trials to train next; none if the sweep ends here.
        why: Why each of them was chosen.
        to_come: FLOPs expected beyond them.
    """

    goal: Goal
    reached: Reached
    message: str
    trials: tuple[Trial, ...] = ()
    why: tuple[str, ...] = ()
    to_come: float = 0.0


@dataclass(frozen=True)
class Rounds:
    """How a sweep grows towards a goal.

    Attributes:
        goal: The goal, with the budgets that may be trained, and the FLOPs that may be spent, those
            of pilot and check included.
        at_once: Trials that are trained side by side.
        chosen: Trials that the last round chose when the sweep was trained before, as plain values.
    """

    goal: Goal
    at_once: int = 1
    chosen: tuple[Mapping[str, Any], ...] = ()

    @property
    def max_flops(self) -> float:
        """FLOPs that may be spent."""
        return self.goal.max_flops or math.inf

    def next(self, rows: IsoflopRows, begun: Sequence[Trial], runs: Sequence[Run]) -> Round:
        """The next round, once all trials that were begun have ended.

        Args:
            rows: The rows of the sweep, with the laws of rate and batch where these were found.
            begun: The trials of the sweep so far.
            runs: One run for each trial, those of pilot and check included.
        """
        spent = sum(map(_spent, runs))
        findings = fit_round(to_frame(runs, RUN_COLUMNS))
        if findings is None:
            return self._without_law(rows, begun, spent)
        budgets = self.goal.budgets
        optima = np.exp(expected_optima(findings, budgets)).tolist()
        possible = possible_trials(rows, begun, dict(zip(budgets, optima, strict=True)))
        table = to_frame(possible, TRIAL_COLUMNS)
        table["flops"] *= len(rows.recipe.lr_multipliers)
        decision = decide(findings, self.goal, table, spent, self.at_once)
        if decision.end:
            return self._ending(decision.reached, decision.end)
        trials = [possible[run] for choice in decision.choices for run in choice.runs]
        why = [choice.why for choice in decision.choices for _ in choice.runs]
        return self._round(decision.reached, trials, why, decision.to_come)

    def _without_law(self, rows: IsoflopRows, begun: Sequence[Trial], spent: float) -> Round:
        """A further row where the runs so far determine no law."""
        reached = Reached(spent, len(begun))
        done = {trial.compute_budget for trial in begun}
        trials = further_row(rows, self.goal.budgets, done, self.max_flops - spent)
        if trials:
            return self._round(reached, trials, [NO_LAW] * len(trials), 0.0)
        return self._ending(reached, NO_LAW)

    def _round(
        self, reached: Reached, trials: Sequence[Trial], why: Sequence[str], to_come: float
    ) -> Round:
        budgets = sorted({trial.compute_budget for trial in trials})
        where = f"at {', '.join(map(flops, budgets))} FLOPs"
        state = in_words(self.goal, reached)
        message = f"{state}. Next: {plural(len(trials), 'trial')} {where}"
        return Round(self.goal, reached, message, tuple(trials), tuple(why), to_come)

    def _ending(self, reached: Reached, why: str) -> Round:
        return Round(self.goal, reached, f"{in_words(self.goal, reached)}. The sweep ends: {why}")


def further_row(
    rows: IsoflopRows, budgets: Sequence[float], begun: Collection[float], left: float
) -> list[Trial]:
    """The first trials of the row to begin where the runs determine no law; none if there is none.

    Args:
        rows: The rows of the sweep.
        budgets: Budgets that may be trained, FLOPs, ascending.
        begun: Those that have a row.
        left: FLOPs that may be spent.
    """
    for budget in budgets:
        if budget in begun:
            continue
        row = first_row(rows.row(budget)[0], SIZES_PER_ROW)
        cost = len(rows.recipe.lr_multipliers) * sum(trial.flops for trial in row)
        if rows.can_show_minimum(row) and cost <= left:
            return [replace(trial, added=True) for trial in row]
    return []


def _spent(run: Run) -> float:
    """FLOPs of a run; its budget if it ended without a loss, and so without a count."""
    if math.isfinite(run.flops):
        return run.flops
    return run.compute_budget if run.state in ("diverged", "failed") else 0.0
