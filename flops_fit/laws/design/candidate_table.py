"""Runs that tables list: those that could be made next, and those that are under way."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flops_fit.errors import TableError
from flops_fit.laws.check import counted
from flops_fit.laws.checks.of_predictions import TOO_FAR
from flops_fit.laws.design.candidates import COLUMNS
from flops_fit.laws.design.search import SIZES_PER_ROW
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.runs.columns import recognise
from flops_fit.laws.runs.formats import Runs, open_table
from flops_fit.laws.runs.numbers import to_numbers
from flops_fit.laws.runs.states import is_under_way
from flops_fit.warn import warn_user

MOST = 400  # candidates that are looked at; more are thinned out row by row
SAME = 0.01  # runs whose ln N and ln D differ by less are the same
ALIKE = 3.0  # factor within which C must agree with N and D
MOST_FAULTS = 20  # that are listed


def under_way(findings: Findings) -> pd.DataFrame:
    """Runs of the sweep whose state is that of a run which is being trained or waits for it.

    Their losses, if there are any, do not count. Runs without N, or without C and D, are left out
    with a warning.

    Returns:
        The columns `COLUMNS`.
    """
    runs = findings.sweep_runs
    runs = runs[is_under_way(runs["state"])]
    numbers = completed(runs, findings.cost)
    lacking = numbers.isna().any(axis=1)
    if lacking.any():
        rows = ", ".join(map(str, numbers.index[lacking]))
        warn_user(f"runs under way that lack N, or C and D, are not counted: rows {rows}")
    return numbers[~lacking]


def completed(runs: pd.DataFrame, cost: FlopsPerToken) -> pd.DataFrame:
    """The columns `COLUMNS` of possible runs, where the table need only have N, and C or D.

    What is missing follows from the FLOPs per token; what does not is NaN.
    """
    numbers = runs.reindex(columns=list(COLUMNS)).astype(float)
    numbers = numbers.where(np.isfinite(numbers) & (numbers > 0))
    per_token = np.exp(log_flops_per_token(np.log(numbers["num_params"].to_numpy()), cost))
    flops = numbers["flops"].fillna(numbers["compute_budget"])
    numbers["flops"] = flops.fillna(numbers["num_tokens"] * per_token)
    numbers["num_tokens"] = numbers["num_tokens"].fillna(numbers["flops"] / per_token)
    numbers["compute_budget"] = numbers["compute_budget"].fillna(numbers["flops"])
    return numbers


def read_candidates(table: Runs, findings: Findings) -> pd.DataFrame:
    """Read a table of possible runs: N, and C or D, in columns of the names that `fit` knows.

    Args:
        table: A DataFrame, the path of a file, columns, or mappings, one row per possible run.
        findings: The laws fitted to the runs so far; D or C, where only one is there, follows from
            the FLOPs per token that the runs have spent.

    Returns:
        The columns `COLUMNS`, with the index of the table, if it is a DataFrame, else with the
        numbers of its rows.

    Raises:
        TableError: Columns are missing, or rows hold impossible values; lists every fault.
    """
    try:
        recognised = recognise(open_table(table)[0])
    except TableError as error:
        raise TableError([f"candidates: {problem}" for problem in error.problems]) from error
    frame = recognised.frame
    given = [name for name in COLUMNS if name in frame.columns]
    if "num_params" not in given or len(given) < 2:
        found = ", ".join(map(str, frame.columns)) or "none"
        raise TableError(
            "candidates: expected columns for N (num_params, N) and for C (compute_budget, C) or D "
            f"(num_tokens, D); found: {found}"
        )
    if frame.empty:
        raise TableError("candidates: the table has no rows")
    values = {
        name: to_numbers(frame[name]).astype(float) * recognised.scales.get(name, 1.0)
        for name in given
    }
    numbers = completed(pd.DataFrame(values), findings.cost)
    faults = _faults(frame[given], pd.DataFrame(values), numbers, findings.cost)
    if faults:
        shown = faults[:MOST_FAULTS]
        shown += [f"... and {len(faults) - len(shown)} more"] * (len(faults) > len(shown))
        raise TableError(shown, f"{counted(len(faults), 'fault')} in the candidates:")
    if isinstance(table, pd.DataFrame):
        # Rows without any value have been dropped.
        index = table.index if len(table) == len(numbers) else table.dropna(how="all").index
        numbers.index = index
    return numbers


def _faults(
    frame: pd.DataFrame, values: pd.DataFrame, numbers: pd.DataFrame, cost: FlopsPerToken
) -> list[str]:
    """What is wrong with candidates, one fault a row.

    Args:
        frame: The columns that were given, as they were.
        values: The same as numbers.
        numbers: What they were completed to.
        cost: FLOPs per token.
    """
    N = numbers["num_params"].to_numpy()
    per_token = np.exp(log_flops_per_token(np.log(N), cost))
    spent = numbers["num_tokens"].to_numpy() * per_token
    C = numbers["flops"].to_numpy()
    wrong = frame.notna() & ~((values > 0) & (values < np.inf))
    lacking = ~np.isfinite(numbers.to_numpy()).all(axis=1)
    apart = ~((C / spent < ALIKE) & (spent / C < ALIKE))
    small = ~((N >= 1) & (numbers["num_tokens"].to_numpy() >= 1))
    faults = []
    for i in np.flatnonzero(wrong.any(axis=1).to_numpy() | lacking | apart | small):
        row = frame.iloc[i].astype(object).to_dict()
        cells = ", ".join(f"{name} = {row[name]!s:.40}" for name in frame if wrong[name].iloc[i])
        if cells:
            faults.append(f"row {i}: expected positive numbers, got {cells}")
        elif lacking[i]:
            faults.append(f"row {i}: N is missing, or both C and D")
        elif small[i]:
            faults.append(f"row {i}: expected at least one parameter and one token")
        else:
            faults.append(f"row {i}: C is {C[i]:.3g} FLOPs, but N and D spend {spent[i]:.3g}")
    return faults


def within_reach(candidates: pd.DataFrame, findings: Findings) -> np.ndarray:
    """Which candidates lie within a thousand times the budgets of the runs, shape (n,)."""
    budgets = findings.fitted_runs["compute_budget"].to_numpy(float)
    C = candidates["compute_budget"].to_numpy(float)
    return (C > budgets.min() / TOO_FAR) & (C < budgets.max() * TOO_FAR)


def not_made(candidates: pd.DataFrame, made: pd.DataFrame) -> np.ndarray:
    """Which candidates differ in N or D from every run made or under way, shape (n,)."""
    new = np.log(candidates[["num_params", "num_tokens"]].to_numpy(float))
    old = np.log(made[["num_params", "num_tokens"]].to_numpy(float))
    return ~(np.abs(new[:, None] - old) < SAME).all(axis=2).any(axis=1)


def thinned(candidates: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """Places of at most `MOST` candidates, spread over the rows and over the sizes of every row.

    Args:
        candidates: Possible runs.
        rows: The row of each.
    """
    if len(candidates) <= MOST:
        return np.arange(len(candidates))
    labels, counts = np.unique(rows, return_counts=True)
    each = max(SIZES_PER_ROW, MOST // len(labels))
    most_rows = max(1, MOST // min(each, int(counts.max())))
    kept = []
    for label in _spread(labels, most_rows):
        row = np.flatnonzero(rows == label)
        row = row[np.argsort(candidates["num_params"].to_numpy()[row], kind="stable")]
        kept.append(_spread(row, each))
    return np.sort(np.concatenate(kept))


def _spread(places: np.ndarray, most: int) -> np.ndarray:
    """At most so many of these, from first to last."""
    return places[np.unique(np.linspace(0, len(places) - 1, most).round().astype(int))]
