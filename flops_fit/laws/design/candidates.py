"""Candidates: the runs that could be made next, as a table lists them or anywhere on a lattice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.errors import TableError
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.runs.columns import recognise
from flops_fit.laws.runs.formats import Runs, open_table
from flops_fit.laws.runs.numbers import to_numbers

COLUMNS = ("compute_budget", "num_params", "num_tokens", "flops")
# The lattice: budgets and sizes apart, and how far sizes lie from the expected optimum, in decades.
BUDGETS_APART, SIZES_APART, REACH = 0.25, 0.125, 1.0
MOST = 400  # candidates that are looked at; more are thinned out row by row


def ladder(budgets: Sequence[float]) -> list[float]:
    """The budgets, ascending, with others between them so that none lie far apart, in FLOPs."""
    found = sorted(budgets)
    for low, high in pairwise(sorted(budgets)):
        parts = max(1, round(math.log10(high / low) / BUDGETS_APART))
        found += [float(f"{C:.3g}") for C in np.geomspace(low, high, parts + 1)[1:-1]]
    return sorted(found)


def expected_optima(findings: Findings, budgets: ArrayLike) -> Array:
    """Ln N at the optimum of each budget, as far as the runs tell, shape (k,)."""
    with np.errstate(all="ignore"):
        predicted = predict_intervals(findings, np.asarray(budgets, float))
    return np.log(predicted["num_params"].to_numpy(float))


def lattice(findings: Findings, budgets: Sequence[float]) -> pd.DataFrame:
    """Possible runs at these budgets: sizes around the expected optimum of each.

    All rows have the same sizes, `SIZES_APART` decades apart. Where a run has been made near one,
    there is no candidate.

    Args:
        findings: The laws fitted to the runs so far.
        budgets: Budgets in FLOPs.
    """
    step = SIZES_APART * math.log(10)
    done = findings.fitted_runs
    parts = []
    for budget, optimum in zip(budgets, expected_optima(findings, budgets), strict=True):
        reach = REACH * math.log(10)
        x = step * np.arange(math.ceil((optimum - reach) / step), (optimum + reach) / step)
        near = np.abs(np.log(done["compute_budget"].to_numpy(float) / budget)) < 0.05
        made = np.log(done["num_params"].to_numpy(float)[near])
        x = x[(np.abs(x[:, None] - made) > step / 2).all(axis=1)]
        parts.append(_row(findings, budget, x))
    return pd.concat(parts, ignore_index=True)


def _row(findings: Findings, budget: float, x: Array) -> pd.DataFrame:
    y = math.log(budget) - log_flops_per_token(x, findings.cost)
    values = (np.full(len(x), budget), np.exp(x), np.exp(y), np.full(len(x), budget))
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def read_candidates(table: Runs, findings: Findings) -> pd.DataFrame:
    """Read a table of possible runs: N, and C or D, in columns of the names that `fit` knows.

    Args:
        table: A DataFrame, the path of a file, columns, or mappings, one row per possible run.
        findings: The laws fitted to the runs so far; D or C, where only one is there, follows from
            the FLOPs per token that the runs have spent.

    Returns:
        The columns `COLUMNS`, with the index of the table.

    Raises:
        TableError: Columns are missing, or rows hold impossible values; lists every fault.
    """
    frame = recognise(open_table(table)[0]).frame
    given = [name for name in COLUMNS if name in frame.columns]
    if "num_params" not in given or len(given) < 2:
        found = ", ".join(map(str, frame.columns)) or "none"
        raise TableError(
            "candidates: expected columns for N (num_params, N) and for C (compute_budget, C) or D "
            f"(num_tokens, D); found: {found}"
        )
    numbers = pd.DataFrame({name: to_numbers(frame[name]).astype(float) for name in given})
    bad = ~(np.isfinite(numbers) & (numbers > 0)).all(axis=1)
    if bad.any() or frame.empty:
        rows = ", ".join(map(str, np.flatnonzero(bad)[:20])) or "none at all"
        raise TableError(
            f"candidates: expected positive numbers in {', '.join(given)}; not so in rows: {rows}"
        )
    per_token = np.exp(log_flops_per_token(np.log(numbers["num_params"].to_numpy()), findings.cost))
    flops = numbers.get("flops", numbers.get("compute_budget"))
    if flops is None:
        flops = numbers["num_tokens"] * per_token
    numbers["flops"] = flops
    if "num_tokens" not in numbers:
        numbers["num_tokens"] = flops / per_token
    if "compute_budget" not in numbers:
        numbers["compute_budget"] = flops
    return numbers[list(COLUMNS)]


def thinned(candidates: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """Places of at most about `MOST` candidates, spread over the sizes of every row.

    Args:
        candidates: Possible runs.
        rows: The row of each.
    """
    if len(candidates) <= MOST:
        return np.arange(len(candidates))
    labels = np.unique(rows)
    each = max(4, MOST // len(labels))
    kept = []
    for label in labels:
        row = np.flatnonzero(rows == label)
        row = row[np.argsort(candidates["num_params"].to_numpy()[row], kind="stable")]
        kept.append(row[np.unique(np.linspace(0, len(row) - 1, each).round().astype(int))])
    return np.sort(np.concatenate(kept))
