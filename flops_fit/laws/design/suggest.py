"""`suggest`: which runs to make next, for sweeps that are trained elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import pandas as pd

from flops_fit.display.number_text import count, flops, times
from flops_fit.errors import FitError
from flops_fit.laws.checks.of_predictions import TOO_FAR
from flops_fit.laws.design.assumed_law import TOKENS_PER_PARAM
from flops_fit.laws.design.candidate_table import (
    not_made,
    read_candidates,
    thinned,
    under_way,
    within_reach,
)
from flops_fit.laws.design.candidates import COLUMNS, ladder, lattice
from flops_fit.laws.design.next_runs import Choice, Limits, choose_runs
from flops_fit.laws.design.search import SIZES_PER_ROW
from flops_fit.laws.findings import Findings
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.runs.budgets import TOLERANCE, group_budgets
from flops_fit.laws.runs.formats import Runs
from flops_fit.laws.runs.table import read_runs
from flops_fit.laws.runs.units import FLOPS_PER_PARAM_TOKEN
from flops_fit.validate import is_non_negative, is_positive, is_whole_number, raise_problems
from flops_fit.warn import warn_user

# Without candidates, runs may cost up to so many times the largest budget of the table. Where its
# budgets span less than the second factor, there are smaller ones too.
BEYOND, LEAST_SPAN = 10**0.5, 10.0
DRAWS = 120  # bootstrap draws: the choice needs no intervals
MOST_RUNS = 1000


class Fitted(Protocol):
    """What holds fitted laws, such as a `Result`."""

    @property
    def findings(self) -> Findings:
        """The laws and the runs they were fitted to."""


def suggest(
    runs: Runs | Fitted,
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
    sizes around its expected optimum; of these, only the first are listed where `n` ends.

    Args:
        runs: A table of runs, as `fit` takes it, or a `Result`, whose fit is then used. Rows whose
            state is that of a run under way (running, queued, planned, ...) count as being
            trained, on the N and D or C that they have.
        target: The compute budget, in FLOPs, that the answer is for: from the smallest budget of
            the runs to 1000 times the largest one that can be trained.
        n: Largest number of runs to suggest. There are fewer where the candidates hold no more; of
            these, a budget without runs needs four sizes.
        candidates: A table of the runs that can be made: N, and C or D, trained on new data. Those
            already trained or under way are left out, and so are those over 1000 times beyond the
            budgets of the runs. By default sizes an eighth of a decade apart, up to a decade on
            both sides of the expected optimum, at the budgets of `runs`, between them, and up to
            `max_budget`. This assumes that a model of any size can be built, that the FLOPs per
            token of the runs (else C = 6 N D) hold for it, and that there are tokens enough; if
            not, pass `candidates`.
        aim: Whose interval is to become narrower: "num_params" (N_opt) or "loss" (L_opt).
        max_budget: Largest budget to train, in FLOPs, where no candidates are given; by default
            half a decade above that of `runs`, but not above the target.
        seed: Random seed of the fit.

    Returns:
        One row per run, in the order in which they were chosen: `compute_budget num_params
        num_tokens flops`, `gain` (the share by which this run, after those above it, is expected
        to narrow the interval at the target) and `why`. Its index is that of `candidates`, if
        given (the numbers of its rows, if it is no DataFrame).

    Raises:
        ArgumentError: An argument is invalid.
        TableError: A table cannot be read; every problem is listed.
        FitError: The runs do not determine a law yet (it says what to train first), or no run can
            be chosen.
    """
    _require_sound(target, n, aim, max_budget, candidates, seed)
    with np.errstate(all="ignore"):
        findings = _findings(runs, seed)
        pending = under_way(findings)
        made = pd.concat([findings.fitted_runs[list(COLUMNS)].astype(float), pending])
        _require_budgets_near(target, max_budget, findings)
        if candidates is None:
            budgets = _budgets(findings, float(target), max_budget)
            possible = lattice(findings, budgets, made)
        else:
            possible = read_candidates(candidates, findings)
            possible = _new(possible, made, findings)
        _require_target_within_reach(target, possible, made, given=candidates is not None)
        possible = possible.iloc[thinned(possible, group_budgets(possible["compute_budget"]))]
        choices = _chosen(findings, float(target), possible, n, pending, aim)
    found = _as_table(choices, possible, n)
    return found if candidates is not None else found.reset_index(drop=True)


def _findings(runs: Runs | Fitted, seed: int) -> Findings:
    """The laws of the runs.

    Raises:
        FitError: There is no law, or the runs are too few to see what it misses.
    """
    findings = getattr(runs, "findings", None)
    if not isinstance(findings, Findings):
        table, found = read_runs(runs)  # type: ignore[arg-type]
        findings = analyse(table, Options(num_draws=DRAWS, seed=seed))
        findings = replace(findings, checks=[*found, *findings.checks])
    refusals = [check for check in findings.checks if check.severity == "refuse"]
    of_law = [check for check in refusals if check.code != "isoflop-refused"]
    reasons = " ".join(check.message for check in of_law or refusals)
    if findings.law is None or findings.misfit is None:
        raise FitError(
            "the runs do not determine a law yet, by which others could be chosen: "
            f"{reasons or 'they are too few to see what it misses.'} {_first_runs(findings)}",
            findings.checks,
        )
    if of_law:
        warn_user(f"the choice rests on a fit that is in doubt: {reasons}")
    return findings


def _first_runs(findings: Findings) -> str:
    """What to train before a law is known: rows of four sizes around D = 20 N."""
    advice = f"Train {SIZES_PER_ROW} sizes at each of three budgets first, over a decade or more"
    C = findings.fitted_runs["compute_budget"].to_numpy(float)
    rows = []
    for budget in np.geomspace(min(C.min(), C.max() / LEAST_SPAN), C.max(), 3):
        middle = (budget / (FLOPS_PER_PARAM_TOKEN * TOKENS_PER_PARAM)) ** 0.5
        sizes = middle * np.geomspace(10**-0.5, 10**0.5, SIZES_PER_ROW)
        rows.append(f"{flops(budget)} FLOPs with N = {', '.join(count(N) for N in sizes)}")
    return f"{advice}, for example {'; '.join(rows)}."


def _budgets(findings: Findings, target: float, max_budget: float | None) -> list[float]:
    """Budgets that may be trained, FLOPs, ascending."""
    C = findings.fitted_runs["compute_budget"].to_numpy(float)
    labels = group_budgets(C)
    found = [float(np.median(C[labels == label])) for label in np.unique(labels)]
    if max_budget is None:
        most = min(BEYOND * found[-1], max(target, found[-1]))
    else:
        most = float(max_budget)
    kept = [budget for budget in found if budget <= 1.01 * most]
    if not kept or most > 1.5 * kept[-1]:
        kept.append(most)
    if kept[-1] < LEAST_SPAN * kept[0]:
        kept.append(kept[-1] / LEAST_SPAN)
    return ladder(kept)


def _new(candidates: pd.DataFrame, made: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    """The candidates within reach that are neither made nor under way, each once.

    Raises:
        ArgumentError: There are none.
    """
    near = candidates[within_reach(candidates, findings)]
    new = near[not_made(near, made)]
    if new.empty:
        reason = (
            f"lie over {times(TOO_FAR)} times beyond the budgets of the runs"
            if near.empty
            else "have been trained already, or are under way"
        )
        raise_problems([f"candidates: none is left; those given {reason}"])
    return new[~new.duplicated(["num_params", "num_tokens"])]


def _chosen(
    findings: Findings,
    target: float,
    possible: pd.DataFrame,
    n: int,
    pending: pd.DataFrame,
    aim: str,
) -> list[Choice]:
    """The choice.

    Raises:
        FitError: No run can be chosen.
    """
    limits = Limits(least_runs=n, most_runs=max(n, SIZES_PER_ROW))
    under_way = None if pending.empty else pending
    try:
        choices = choose_runs(findings, target, possible, limits, pending=under_way, aim=aim)
    except np.linalg.LinAlgError as error:
        raise FitError(f"the runs do not determine what others would tell: {error}") from error
    if not choices or not np.isfinite([choice.narrower for choice in choices]).all():
        raise FitError(
            f"none of {len(possible)} possible runs can be chosen: a budget without runs is begun "
            f"with {SIZES_PER_ROW} sizes on both sides of its expected optimum, and what the "
            "others would tell is lost in rounding. Pass other candidates"
        )
    return choices


def _as_table(choices: list[Choice], possible: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first n runs chosen, with an equal share of the gain of those chosen together."""
    listed: list[tuple[int, float, str]] = []
    for choice in choices:
        together = len(choice.runs)
        gain = 1 - (1 - max(choice.narrower, 0.0)) ** (1 / together)
        kept = min(together, n - len(listed))
        cut = f" (its gain needs {together} runs, of which {kept} are listed)"
        why = choice.why + (cut if 0 < kept < together else "")
        listed += [(run, gain, why) for run in choice.runs[:kept]]
    runs, gains, reasons = zip(*listed, strict=True)
    return possible.iloc[list(runs)].assign(gain=gains, why=reasons)


def _require_sound(
    target: float,
    n: int,
    aim: str,
    max_budget: float | None,
    candidates: Runs | None,
    seed: int,
) -> None:
    problems = []
    if not is_positive(target):
        problems.append(f"target: expected a number of FLOPs, such as 1e21, got {target!r}")
    if not is_whole_number(n) or not 1 <= n <= MOST_RUNS:
        problems.append(f"n: expected a number of runs from 1 to {MOST_RUNS}, got {n!r}")
    if aim not in ("num_params", "loss"):
        problems.append(f'aim: expected "num_params" or "loss", got {aim!r}')
    if max_budget is not None and not is_positive(max_budget):
        problems.append(f"max_budget: expected FLOPs, such as 1e20, got {max_budget!r}")
    elif max_budget is not None and candidates is not None:
        problems.append("max_budget: the candidates say which budgets can be trained; pass one")
    if not is_whole_number(seed) or not is_non_negative(seed):
        problems.append(f"seed: expected a whole number from 0, got {seed!r}")
    raise_problems(problems)


def _require_budgets_near(target: float, max_budget: float | None, findings: Findings) -> None:
    """Require that target and largest budget are not below the runs, nor the latter far above."""
    budgets = findings.fitted_runs["compute_budget"].to_numpy(float)
    least, most = float(budgets.min()), float(budgets.max())
    given = (("target", target), ("max_budget", max_budget))
    problems = [
        f"{name}: expected at least {flops(least)} FLOPs, the smallest budget of the runs, "
        f"got {flops(budget)}"
        for name, budget in given
        if budget is not None and budget * (1 + TOLERANCE) < least
    ]
    if max_budget is not None and max_budget > TOO_FAR * most:
        problems.append(
            f"max_budget: expected at most {times(TOO_FAR)} times the largest budget of the runs, "
            f"{flops(most)} FLOPs, got {flops(max_budget)}"
        )
    raise_problems(problems)


def _require_target_within_reach(
    target: float, possible: pd.DataFrame, made: pd.DataFrame, *, given: bool
) -> None:
    """Require that the law could say something of the target, as `Result.predict` does."""
    largest = max(float(runs["compute_budget"].max()) for runs in (possible, made))
    if target > TOO_FAR * (1 + TOLERANCE) * largest:
        advice = "larger candidates" if given else "a larger max_budget"
        raise_problems(
            [
                f"target: {flops(target)} FLOPs are {times(target / largest)} times the largest "
                f"budget to be trained, {flops(largest)}; at most {times(TOO_FAR)} times is "
                f"predicted. Ask for less, or pass {advice}"
            ]
        )
