"""`suggest`: which runs to make next, for sweeps that are trained elsewhere."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.design.candidates import COLUMNS, ladder, lattice, read_candidates, thinned
from flops_fit.laws.design.next_runs import Limits, choose_runs
from flops_fit.laws.design.search import SIZES_PER_ROW
from flops_fit.laws.findings import Findings
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.runs.budgets import group_budgets
from flops_fit.laws.runs.formats import Runs
from flops_fit.laws.runs.table import read_runs
from flops_fit.validate import is_positive, is_whole_number, raise_problems

SUGGESTED_COLUMNS = (*COLUMNS, "gain", "why")
# Without candidates, runs may cost up to so many times the largest budget of the table.
BEYOND = 10**0.5
DRAWS = 120  # bootstrap draws: the choice needs no intervals


def suggest(
    runs: Runs,
    *,
    target: float,
    n: int = 5,
    candidates: Runs | None = None,
    aim: Literal["num_params", "loss"] = "num_params",
    max_budget: float | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Suggest which runs to train next, to know the best model for a budget more precisely.

    Runs are chosen one after the other by how much they narrow the interval at the target for
    their FLOPs, with the error of the law in the calculation, not only that of its parameters. A
    share of the FLOPs goes to runs that test the law. A budget without runs is begun with four
    sizes around its expected optimum.

    Args:
        runs: A table of runs, as `fit` takes it. Rows whose state is that of a run under way count
            as being trained.
        target: The compute budget, in FLOPs, that the answer is for.
        n: Number of runs to suggest.
        candidates: A table of the runs that can be made: N, and C or D. By default sizes an eighth
            of a decade apart, at the budgets of `runs`, between them, and up to `max_budget`.
        aim: Whose interval is to become narrower: "num_params" (N_opt) or "loss" (L_opt).
        max_budget: Largest budget to train, in FLOPs, where no candidates are given; by default
            half a decade above that of `runs`.
        seed: Random seed of the fit.

    Returns:
        One row per run, in the order in which they were chosen: `compute_budget num_params
        num_tokens flops`, `gain` (the share by which this run narrows the interval) and `why`. Its
        index is that of `candidates`, if given.

    Raises:
        ArgumentError: An argument is invalid.
        TableError: A table cannot be read; every problem is listed.
        FitError: The runs do not determine a law yet; says what to train first.
    """
    _require_sound(target, n, aim, max_budget, candidates)
    table, _ = read_runs(runs)
    with np.errstate(all="ignore"):
        findings = _fitted(table, seed)
        if candidates is None:
            possible = lattice(findings, _budgets(table, max_budget))
        else:
            possible = read_candidates(candidates, findings)
        possible = possible.iloc[thinned(possible, group_budgets(possible["compute_budget"]))]
        limits = Limits(least_runs=n, most_runs=max(n, SIZES_PER_ROW))
        choices = choose_runs(
            findings, float(target), possible, limits, pending=_under_way(table), aim=aim
        )
    order = [run for choice in choices for run in choice.runs]
    found = possible.iloc[order].copy()
    found["gain"] = [
        1 - (1 - choice.narrower) ** (1 / len(choice.runs))
        for choice in choices
        for _ in choice.runs
    ]
    found["why"] = [choice.why for choice in choices for _ in choice.runs]
    return found


def _fitted(table: pd.DataFrame, seed: int) -> Findings:
    """The laws of the runs.

    Raises:
        FitError: There is no law, or the runs are too few to see what it misses.
    """
    findings = analyse(table, Options(num_draws=DRAWS, seed=seed))
    if findings.law is not None and findings.misfit is not None:
        return findings
    reasons = " ".join(check.message for check in findings.checks if check.severity == "refuse")
    raise FitError(
        f"the runs do not determine a law yet, so that none can be suggested: {reasons} Train "
        f"{SIZES_PER_ROW} sizes around the expected optimum at each of three budgets first, over "
        "a decade or more",
        findings.checks,
    )


def _budgets(table: pd.DataFrame, max_budget: float | None) -> list[float]:
    C = np.log(table["compute_budget"].to_numpy(float))
    labels = group_budgets(np.exp(C))
    found = [float(np.exp(C[labels == label].mean())) for label in np.unique(labels)]
    most = BEYOND * found[-1] if max_budget is None else float(max_budget)
    kept = [budget for budget in found if budget <= 1.01 * most]
    if not kept or most > 1.5 * kept[-1]:
        kept.append(most)
    return ladder(kept)


def _under_way(table: pd.DataFrame) -> pd.DataFrame | None:
    """Runs without a loss yet that have neither failed nor been left out for another reason."""
    waiting = table[table["state"].isin(["running", "interrupted", "waiting", "scheduled"])]
    return None if waiting.empty else waiting[list(COLUMNS)]


def _require_sound(
    target: float, n: int, aim: str, max_budget: float | None, candidates: Runs | None
) -> None:
    problems = []
    if not is_positive(target):
        problems.append(f"target: expected a compute budget in FLOPs, such as 1e21, got {target!r}")
    if not is_whole_number(n) or not 1 <= n <= 1000:
        problems.append(f"n: expected a number of runs from 1 to 1000, got {n!r}")
    if aim not in ("num_params", "loss"):
        problems.append(f'aim: expected "num_params" or "loss", got {aim!r}')
    if max_budget is not None and not is_positive(max_budget):
        problems.append(f"max_budget: expected FLOPs, such as 1e20, got {max_budget!r}")
    elif max_budget is not None and candidates is not None:
        problems.append("max_budget: the candidates say which budgets can be trained; pass one")
    raise_problems(problems)
