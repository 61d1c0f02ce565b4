"""`decide`: what a sweep with a goal does next, given the laws fitted to its runs so far.

A round chooses the runs that narrow the interval at the target most for their FLOPs (`next_runs`).
The sweep ends when the interval is narrow enough, a row is trained near enough to the target, and
there are enough rows and runs; when its FLOPs are spent; or when all that may be trained cannot
narrow it so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flops_fit.display.number_text import flops, percent, times
from flops_fit.errors import FitError
from flops_fit.laws.checks.of_predictions import TOO_FAR
from flops_fit.laws.design.goal import Goal
from flops_fit.laws.design.next_runs import Choice, Limits, choose_runs, reachable
from flops_fit.laws.design.search import SIZES_PER_ROW
from flops_fit.laws.findings import Findings
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.runs.budgets import TOLERANCE, group_budgets
from flops_fit.laws.runs.table import read_runs

DRAWS = 120  # bootstrap draws of a round's fit
GROWTH = 0.25  # FLOPs of a round, over those spent before it
# The goal is out of reach if the interval would be this many times as wide as asked for, on a
# logarithmic scale, after all that may be trained. Before a row is trained near the largest budget
# little is known of what the law misses there, and the expected width may be seven times too large.
OUT_OF_REACH, OUT_OF_REACH_BELOW = 3.0, 10.0
NEAR_LARGEST = 0.9
# Fewest runs and rows of a sweep that ends because its interval is narrow: of fewer the checks
# warn, and some intervals are narrow by chance.
ENOUGH_RUNS, ENOUGH_ROWS = 20, 4
PRECISE = "as precise as asked for"
TRAINED_OUT = "all that may be trained has been trained"
UNTOLD = "the interval is narrow, but nothing is predicted so far beyond the rows trained"
NO_ROW = (
    "no further row can be begun: it takes four sizes on both sides of the expected optimum, "
    "within max_flops"
)
NOT_ENOUGH = (
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
    span: float = math.inf
    loss_span: float = math.inf

    @classmethod
    def of(cls, findings: Findings, target: float, spent: float) -> Reached:
        """What the laws say of a target, after so many FLOPs."""
        with np.errstate(all="ignore"):
            row = predict_intervals(findings, np.array([target])).iloc[0]
            spans = [float(row[f"{q}_high"] / row[f"{q}_low"]) for q in ("num_params", "loss")]
        known = [max(span, 1 + 1e-12) if span >= 1 else math.inf for span in spans]
        return cls(spent, len(findings.fitted_runs), *known)


@dataclass(frozen=True)
class Decision:
    """What to do next.

    Attributes:
        reached: How precise the answer is.
        choices: The runs to make, by their places among the candidates; none if the sweep ends.
        to_come: FLOPs expected beyond them.
        end: Why the sweep ends; empty if it goes on.
    """

    reached: Reached
    choices: tuple[Choice, ...] = ()
    to_come: float = 0.0
    end: str = ""


def decide(
    findings: Findings, goal: Goal, candidates: pd.DataFrame, spent: float, at_once: int = 1
) -> Decision:
    """Decide what a sweep does next.

    Args:
        findings: The laws fitted to its runs, with a misfit.
        goal: The goal, with the budgets that may be trained and the FLOPs that may be spent.
        candidates: Possible runs: `compute_budget num_params num_tokens flops`.
        spent: FLOPs spent so far.
        at_once: Runs that are made side by side.
    """
    assert goal.max_flops is not None
    reached = Reached.of(findings, goal.target, spent)
    aim, wanted = _lacking(goal, reached)
    top = findings.largest_budget
    left = goal.max_flops - spent
    fits = candidates["flops"].to_numpy(float) <= left
    rows = _rows_needed(findings, goal, candidates)
    few = ENOUGH_RUNS - reached.num_runs
    limits = Limits(at_once, math.inf, GROWTH * spent, left, wanted, rows)
    if not rows and few > 0:
        num_runs = few if wanted <= 0 else max(few, at_once)
        limits = Limits(num_runs, most_flops=left, cheap_runs=few)
    elif wanted <= 0:
        if not rows:
            return Decision(reached, end=PRECISE + _distance(goal, top))
        fits &= np.isin(candidates["compute_budget"], rows)
        limits = Limits(SIZES_PER_ROW, SIZES_PER_ROW, most_flops=left)
    affordable = np.flatnonzero(fits)
    table = candidates.iloc[affordable]
    per_hour = goal.gain_per == "hour"
    choices = choose_runs(
        findings, goal.target, table, limits, aim=aim, per_hour=per_hour, in_rows=True
    )
    if not choices:
        end = TRAINED_OUT
        if len(candidates):
            end = NO_ROW if len(table) else _spent_out(goal.max_flops)
        if wanted <= 0:
            near = goal.target <= TOO_FAR * top
            end = f"{PRECISE}, by few runs; {end}" if near else f"{UNTOLD}; {end}"
        return Decision(reached, end=end + _distance(goal, top))
    if 0 < wanted < 1 and not rows and reached.num_runs >= ENOUGH_RUNS:
        most = reachable(findings, goal.target, table, aim)
        seen = top >= NEAR_LARGEST * goal.budgets[-1]
        if 1 - most > (OUT_OF_REACH if seen else OUT_OF_REACH_BELOW) * (1 - wanted):
            return Decision(reached, end=NOT_ENOUGH)
    own = tuple(
        Choice(tuple(int(affordable[run]) for run in choice.runs), choice.why, choice.narrower)
        for choice in choices
    )
    used = float(candidates["flops"].iloc[[run for c in own for run in c.runs]].sum())
    return Decision(reached, own, _to_come(own, used, wanted, left))


def fit_round(runs: pd.DataFrame, seed: int = 0) -> Findings | None:
    """The laws of a table of runs, with a misfit; None if they determine none, or are too few."""
    try:
        with np.errstate(all="ignore"):
            findings = analyse(read_runs(runs)[0], Options(num_draws=DRAWS, seed=seed))
    except FitError:
        return None
    return None if findings.law is None or findings.misfit is None else findings


def _rows_needed(findings: Findings, goal: Goal, candidates: pd.DataFrame) -> list[float]:
    """Budgets at one of which a sweep needs a row before it may end; none if it has its rows.

    It is begun before other runs are chosen, as these are worth more or less once it is there.
    """
    C = np.unique(candidates["compute_budget"].to_numpy(float))
    done = findings.fitted_runs["compute_budget"].to_numpy(float)
    if findings.largest_budget < 0.9 * goal.least_top:
        return [budget for budget in C.tolist() if np.isclose(budget, goal.least_top)]
    if num_rows(findings) >= ENOUGH_ROWS:
        return []
    return [budget for budget in C.tolist() if np.abs(np.log(done / budget)).min() > TOLERANCE]


def num_rows(findings: Findings) -> int:
    """How many budgets have a row.

    Two sizes are enough here: `choose_runs` completes rows of two or three sizes first.
    """
    runs = findings.fitted_runs
    labels = group_budgets(runs["compute_budget"].to_numpy(float))
    sizes = runs["num_params"].astype(float).groupby(labels).nunique()
    return int((sizes > 1).sum())


def _lacking(goal: Goal, reached: Reached) -> tuple[str, float]:
    """Whose interval is farthest from the goal, and the share by which it is to narrow."""
    wanted = {
        name: 1 - math.log(until) / math.log(span)
        for name, until, span in (
            ("num_params", goal.until, reached.span),
            ("loss", goal.until_loss, reached.loss_span),
        )
        if until is not None
    }
    aim = max(wanted, key=lambda name: wanted[name])
    return aim, wanted[aim]


def _to_come(choices: Sequence[Choice], used: float, wanted: float, left: float) -> float:
    """FLOPs expected after a round: as many for each share of narrowing as in the round."""
    gained = -sum(math.log1p(-min(choice.narrower, 0.999)) for choice in choices)
    needed = math.inf if wanted >= 1 else -math.log1p(-max(wanted, 0.0))
    more = max(0.0, used * (needed / max(gained, 1e-9) - 1))
    return min(more, left - used)


def _spent_out(max_flops: float) -> str:
    return (
        f"what would come next exceeds max_flops, {flops(max_flops)} FLOPs; pass a larger one to "
        "go on"
    )


def _distance(goal: Goal, top: float) -> str:
    """How far the target lies beyond the largest budget that was trained."""
    beyond = goal.target / top
    if beyond <= 1.1:
        return ""
    return f"; the largest budget trained is {flops(top)} FLOPs, {times(beyond)} times below it"


def in_words(goal: Goal, reached: Reached) -> str:
    """How precise the answer is, of what is asked for."""
    assert goal.max_flops is not None
    parts = []
    for what, until, span in (
        ("N_opt", goal.until, reached.span),
        ("the loss", goal.until_loss, reached.loss_span),
    ):
        if until is not None:
            known = f"spans {span:.4g}x" if math.isfinite(span) else "is not known"
            parts.append(f"the interval of {what} {known}, of {until:.10g}x asked for")
    share = percent(reached.flops / goal.max_flops)
    text = f"At {flops(goal.target)} FLOPs {' and '.join(parts)}"
    return f"{text}, after {flops(reached.flops)} FLOPs ({share} of what may be spent)"
