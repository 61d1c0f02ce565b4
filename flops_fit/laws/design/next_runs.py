"""Which runs to make next: those that narrow the answer at a target budget most for their FLOPs.

Each step adds one size to a row that has been begun, or begins a row with four sizes around its
expected optimum. What it would gain beyond the goal does not count. A share of the FLOPs goes to
runs that test the law: those that tell most of its misfit along the optima, whatever they cost
within that share. Rows with their least loss at an edge get a size beyond it first, and rows of two
or three sizes a further one; then come a row at given budgets and cheap runs, as far as they are
needed in any case.

The choice is greedy, by gain over cost. Greedy choice under the law alone buys cheap runs far out,
where the law is wrong (docs/method.md); the misfit in `uncertainty` prevents that.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from flops_fit.laws.design.search import Search
from flops_fit.laws.design.uncertainty import LOSS, SIZE, Uncertainty, drift_of
from flops_fit.laws.findings import Findings

TEST_SHARE = 0.15  # of the FLOPs, for runs that test the law
# What the logarithms of the variances of ln N_opt and ln L_opt count, by what is aimed at.
AIMS = {"num_params": (1.0, 0.5), "loss": (0.25, 1.0)}
IN_WORDS = {"num_params": "N_opt", "loss": "the loss"}


@dataclass(frozen=True)
class Choice:
    """Runs chosen together.

    Attributes:
        runs: Their places among the candidates.
        why: In words.
        narrower: Share by which they narrow the interval aimed at.
    """

    runs: tuple[int, ...]
    why: str
    narrower: float


@dataclass(frozen=True)
class Limits:
    """How many runs to choose.

    Attributes:
        least_runs: Fewest, even where fewer spend `least_flops`.
        most_runs: Most.
        least_flops: Stop once they spend as much.
        most_flops: FLOPs that they may spend.
        narrower: Stop once they narrow the interval by this share.
        row_at: Budgets at one of which a row is begun first, FLOPs; none if rows are enough.
        cheap_runs: Fewest runs that are taken where they are cheapest, before any others.
    """

    least_runs: int = 1
    most_runs: float = math.inf
    least_flops: float = 0.0
    most_flops: float = math.inf
    narrower: float = 1.0
    row_at: Collection[float] = ()
    cheap_runs: int = 0


@dataclass
class _Chosen:
    """What has been chosen so far, and how far it goes."""

    search: Search
    limits: Limits
    choices: list[Choice] = field(default_factory=list)
    count: int = 0
    flops: float = 0.0
    of_tests: float = 0.0
    left: float = 1.0  # width of the interval, over that without these runs

    @property
    def enough(self) -> bool:
        limits = self.limits
        if self.count < limits.least_runs:
            return False
        done = self.flops >= limits.least_flops or 1 - self.left >= limits.narrower
        return done or self.count >= limits.most_runs

    @property
    def room(self) -> tuple[float, float]:
        """How many more runs and FLOPs."""
        return self.limits.most_runs - self.count, self.limits.most_flops - self.flops

    @property
    def needed(self) -> float:
        """By how much the logarithm of the variance aimed at is still to fall."""
        wanted = 1 - self.limits.narrower
        return 2 * math.log(self.left / wanted) if 0 < wanted < self.left else math.inf

    def add(self, runs: list[int], why: str, *, tests: bool = False) -> None:
        flops = float(self.search.flops[runs].sum())
        narrower = self.search.take(runs)
        self.choices.append(Choice(tuple(runs), why, narrower))
        self.count += len(runs)
        self.flops += flops
        self.of_tests += flops * tests
        self.left *= 1 - narrower


def choose_runs(
    findings: Findings,
    target: float,
    candidates: pd.DataFrame,
    limits: Limits,
    *,
    pending: pd.DataFrame | None = None,
    aim: str = "num_params",
    per_hour: bool = False,
    in_rows: bool | None = None,
) -> list[Choice]:
    """Choose the runs to make next.

    Args:
        findings: The laws fitted to the runs so far, with a misfit.
        target: Budget of the answer, FLOPs.
        candidates: Possible runs, n rows: `compute_budget num_params num_tokens flops`.
        limits: How many.
        pending: Runs that are being made, in the same columns.
        aim: "num_params" or "loss": whose interval at the target is to become narrower.
        per_hour: Whether a run costs the seconds that it is expected to take, by the times of the
            runs so far; else, and where no time is known, its FLOPs.
        in_rows: Whether runs are chosen by rows of four sizes or more; by default if those made
            and most candidates lie in such rows.
    """
    if candidates.empty:
        return []
    search = Search.of(findings, target, candidates, pending, aim, per_hour, in_rows)
    chosen = _Chosen(search, limits)
    _complete_rows(chosen)
    q = search.uncertainty.num_answers
    of_answer = np.r_[AIMS[aim], np.zeros(q - 2)]
    of_tests = np.r_[0.0, 0.0, np.full(q - 2, 1 / (q - 2))]
    row = search.best_row(of_answer, limits.row_at, chosen.room[1])
    if row:
        chosen.add(row, "begins a row that is needed in any case")
    while chosen.count < limits.cheap_runs:
        cheap = search.cheapest(of_answer, chosen.room[1])
        if cheap is None:
            break
        chosen.add([cheap], "one of the runs that are needed in any case, where they are cheapest")
    while not chosen.enough:
        if chosen.of_tests < TEST_SHARE * chosen.flops:
            most = min(chosen.room[1], TEST_SHARE * (search.spent + chosen.flops))
            test = search.most_telling(of_tests, most)
            if test is not None:
                chosen.add([test], "tests the law", tests=True)
                continue
        runs = search.best(of_answer, *chosen.room, chosen.needed)
        if not runs:
            break
        why = f"narrows {IN_WORDS[aim]} most for its {'time' if search.timed else 'FLOPs'}"
        chosen.add(runs, f"begins a row: {why}" if len(runs) > 1 else why)
    return chosen.choices


def reachable(
    findings: Findings, target: float, candidates: pd.DataFrame, aim: str = "num_params"
) -> float:
    """By which share the interval aimed at would narrow if all candidates were trained."""
    top = max(findings.largest_budget, float(candidates["compute_budget"].max()))
    now = Uncertainty.of(findings, target, (), candidates, least_misfit=0.0)
    now = replace(now, drift=drift_of(findings, target, findings.largest_budget))
    gain = now.gain(range(len(candidates)), drift_of(findings, target, top))
    return 1 - math.exp(-float(gain[SIZE if aim == "num_params" else LOSS]) / 2)


def _complete_rows(chosen: _Chosen) -> None:
    """Add the runs without which rows show no minimum."""
    search = chosen.search
    for find, why in (
        (search.beyond_edges, "the least loss of its row lies at this edge"),
        (search.short_rows, "its row has fewer than four sizes"),
    ):
        for run in find():
            most_runs, most_flops = chosen.room
            if most_runs >= 1 and search.flops[run] <= most_flops:
                chosen.add([run], why)
