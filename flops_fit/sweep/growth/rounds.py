"""`Rounds`: how a sweep with a goal grows, round by round, until the answer is precise enough.

Each round fits the runs so far, looks at the interval at the target, and chooses the trials that
narrow it most for their FLOPs (`laws.design.next_runs`). It is a function of the runs alone, so
that a sweep that was interrupted goes on; trials that were begun come first.

Stopping when an interval happens to be narrow chooses intervals that are too narrow. It must
therefore be narrower than asked for by `MARGIN` (simulated: docs/method.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from flops_fit.display.number_text import flops, percent, ratio
from flops_fit.errors import FitError
from flops_fit.laws.design.candidates import expected_optima
from flops_fit.laws.design.next_runs import Choice, Limits, choose_runs, reachable
from flops_fit.laws.findings import Findings
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.runs.table import read_runs
from flops_fit.records import RUN_COLUMNS, TRIAL_COLUMNS, Run, Trial, to_frame
from flops_fit.sweep.growth.points import possible_trials
from flops_fit.sweep.plan.goal import LEAST_SIZES, Goal, first_row
from flops_fit.sweep.plan.isoflop_row import IsoflopRows, plural

DRAWS = 200  # bootstrap draws of a round's fit
GROWTH = 0.25  # FLOPs of a round, over those spent before it
MARGIN = 1.0
# The goal is out of reach if the interval would be this many times as wide as asked for, on a
# logarithmic scale, after all that may be trained. Fewer runs cannot tell.
OUT_OF_REACH, ENOUGH_RUNS = 1.3, 20
TRAINED_OUT = "all that may be trained has been trained"
OUT_OF_REACH_OF_ALL = (
    "all that may be trained would not make it so narrow; pass larger compute_budgets, or a nearer "
    "target"
)


@dataclass(frozen=True)
class Reached:
    """How precise the answer is after some runs.

    Attributes:
        flops: FLOPs spent.
        num_runs: Runs that were fitted.
        span: Factor that the interval of N_opt at the target spans; infinite if it is not known.
        loss_span: The same of the loss.
    """

    flops: float
    num_runs: int
    span: float
    loss_span: float


@dataclass(frozen=True)
class Round:
    """What a round asks for.

    Attributes:
        reached: How precise the answer was before.
        trials: The trials to train next; none if the sweep ends here.
        why: Why each of them was chosen.
        to_come: FLOPs expected beyond them.
        message: For the user.
    """

    reached: Reached
    trials: tuple[Trial, ...]
    why: tuple[str, ...]
    to_come: float
    message: str


@dataclass(frozen=True)
class Rounds:
    """How a sweep grows towards a goal.

    Attributes:
        goal: The goal, with the budgets that may be trained.
        max_flops: What all trials may cost together, those of pilot and check included.
        at_once: Trials that are trained side by side.
    """

    goal: Goal
    max_flops: float
    at_once: int = 1

    def next(self, rows: IsoflopRows, begun: Sequence[Trial], runs: Sequence[Run]) -> Round:
        """The next round, once all trials that were begun have ended.

        Args:
            rows: The rows of the sweep, with the laws of rate and batch where these were found.
            begun: The trials of the sweep so far.
            runs: One run for each trial, those of pilot and check included.
        """
        spent = sum(run.flops for run in runs if math.isfinite(run.flops))
        findings = _fitted(runs)
        if findings is None:
            return self._without_law(rows, begun, spent)
        reached = Reached(spent, len(findings.fitted_runs), *_spans(findings, self.goal.target))
        aim, wanted = self._lacking(reached)
        if wanted <= 0:
            return self._end(reached, "as precise as asked for")
        optima = np.exp(expected_optima(findings, self.goal.budgets))
        expected = dict(zip(self.goal.budgets, optima.tolist(), strict=True))
        possible = possible_trials(rows, begun, expected)
        left = self.max_flops - spent
        affordable = [trial for trial in possible if trial.flops <= left]
        if not affordable:
            return self._end(reached, self._spent_out() if possible else TRAINED_OUT)
        table = to_frame(affordable, TRIAL_COLUMNS)
        limits = Limits(self.at_once, math.inf, GROWTH * spent, left, wanted)
        choices = choose_runs(findings, self.goal.target, table, limits, aim=aim)
        if not choices:
            return self._end(reached, self._spent_out())
        if reached.num_runs >= ENOUGH_RUNS:
            most = reachable(findings, self.goal.target, table, aim)
            if 1 - most > OUT_OF_REACH * (1 - wanted):
                return self._end(reached, OUT_OF_REACH_OF_ALL)
        trials = tuple(affordable[run] for choice in choices for run in choice.runs)
        why = tuple(choice.why for choice in choices for _ in choice.runs)
        to_come = _to_come(choices, _flops(trials), wanted, left)
        return Round(reached, trials, why, to_come, self._in_words(reached, trials))

    def _without_law(self, rows: IsoflopRows, begun: Sequence[Trial], spent: float) -> Round:
        """A further row where the runs so far determine no law."""
        reached = Reached(spent, len(begun), math.inf, math.inf)
        for budget in self.goal.budgets:
            if budget in {trial.compute_budget for trial in begun}:
                continue
            row = first_row(rows.row(budget)[0], LEAST_SIZES)
            trials = tuple(replace(trial, added=True) for trial in row)
            if rows.can_show_minimum(row) and _flops(trials) <= self.max_flops - spent:
                why = ("the runs so far determine no law",) * len(trials)
                return Round(reached, trials, why, 0.0, self._in_words(reached, trials))
        return self._end(reached, "the runs determine no law")

    def _lacking(self, reached: Reached) -> tuple[str, float]:
        """Whose interval is farthest from the goal, and the share by which it is to narrow."""
        asked = {"num_params": self.goal.until, "loss": self.goal.until_loss}
        spans = {"num_params": reached.span, "loss": reached.loss_span}
        wanted = {
            name: 1 - math.log(until) / (MARGIN * math.log(spans[name]))
            for name, until in asked.items()
            if until is not None
        }
        aim = max(wanted, key=lambda name: wanted[name])
        return aim, wanted[aim]

    def _end(self, reached: Reached, why: str) -> Round:
        return Round(reached, (), (), 0.0, f"{self._state(reached)}. The sweep ends: {why}")

    def _spent_out(self) -> str:
        return f"what would come next exceeds max_flops, {flops(self.max_flops)} FLOPs"

    def _in_words(self, reached: Reached, trials: Sequence[Trial]) -> str:
        budgets = sorted({trial.compute_budget for trial in trials})
        where = f"at {', '.join(map(flops, budgets))} FLOPs"
        return f"{self._state(reached)}. Next: {plural(len(trials), 'trial')} {where}"

    def _state(self, reached: Reached) -> str:
        """How precise the answer is, of what is asked for."""
        goal, parts = self.goal, []
        for what, until, span in (
            ("N_opt", goal.until, reached.span),
            ("the loss", goal.until_loss, reached.loss_span),
        ):
            if until is not None:
                known = f"spans {ratio(span)}x" if math.isfinite(span) else "is not known"
                parts.append(f"the interval of {what} {known}, of {ratio(until)}x asked for")
        share = percent(reached.flops / self.max_flops)
        text = f"At {flops(goal.target)} FLOPs {' and '.join(parts)}"
        return f"{text}, after {flops(reached.flops)} FLOPs ({share} of what may be spent)"


def _fitted(runs: Sequence[Run]) -> Findings | None:
    """The laws of the runs; None if they determine none, or are too few to see what it misses."""
    try:
        with np.errstate(all="ignore"):
            table, _ = read_runs(to_frame(runs, RUN_COLUMNS))
            findings = analyse(table, Options(num_draws=DRAWS))
    except FitError:
        return None
    return None if findings.law is None or findings.misfit is None else findings


def _spans(findings: Findings, target: float) -> tuple[float, float]:
    """The factors that the intervals of N_opt and of the loss span."""
    with np.errstate(all="ignore"):
        row = predict_intervals(findings, np.array([target])).iloc[0]
        spans = [row[f"{name}_high"] / row[f"{name}_low"] for name in ("num_params", "loss")]
    N, loss = (float(span) if span >= 1 else math.inf for span in spans)
    return max(N, 1 + 1e-12), max(loss, 1 + 1e-12)


def _to_come(choices: Sequence[Choice], spent: float, wanted: float, left: float) -> float:
    """FLOPs expected after a round: as many for each share of narrowing as in the round."""
    gained = -sum(math.log1p(-min(choice.narrower, 0.999)) for choice in choices)
    needed = math.inf if wanted >= 1 else -math.log1p(-wanted)
    more = max(0.0, spent * (needed / max(gained, 1e-9) - 1))
    return min(more, left - spent)


def _flops(trials: Sequence[Trial]) -> float:
    return sum(trial.flops for trial in trials)
