"""Whether a column of the table explains the residuals: data sets, tokenizers, optimisers pooled.

One law for runs of several conditions holds for none of them. For each column with few values, an
F test asks whether the residuals of the law, beyond any smooth trend in N and D, differ between its
levels (in their mean, or in their slopes). It is taken on normal scores, so that single outliers
do not decide it, and with Bonferroni's correction, so that many harmless columns do not either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from flops_fit.display.number_text import percent
from flops_fit.laws.check import Check
from flops_fit.laws.distributions import correlation, f_tail, normal_quantile, ranks
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.runs.columns import holds_numbers
from flops_fit.laws.runs.exclusions import epochs
from flops_fit.laws.runs.names import ALIASES, plain, words
from flops_fit.laws.runs.repeats import OF_THE_RUN
from flops_fit.records import RUN_COLUMNS

LEVEL = 1e-3
# Share of the variance of the residuals that a column explains: above the first it warns. Where all
# such columns explain more than the second, and levels differ by SHIFT of the loss, it refuses.
EXPLAINED = (0.1, 0.5)
SHIFT = 0.005
MOST_LEVELS = 12
LEAST_DOF = 8
# A numeric column this close to a power law in N and D, or this well ordered by N, D or C, is a
# function of them.
FUNCTION_OF_N_AND_D = 0.97
ORDERED = 0.9
# Words of column names: marks that somebody set by the loss itself, and other losses.
MARKS = frozenset("outlier outliers reason flag excluded exclude valid keep loss ppl".split())
# And conditions of training.
CONDITIONS = frozenset(
    "data dataset datasets corpus tokenizer tokeniser vocab vocabulary optimizer optimiser arch "
    "architecture schedule scheduler precision dtype".split()
)


@dataclass(frozen=True)
class _Effect:
    """How far a column explains the residuals: p value, share explained, shift of ln L a level.

    Behind them are the normal scores, the trend beyond which they are tested, and the levels'
    indicators.
    """

    column: str
    p: float
    explained: float
    shifts: pd.Series
    scores: Array
    trend: Array
    levels: Array

    @property
    def range(self) -> float:
        return float(self.shifts.max() - self.shifts.min())


def check_conditions(findings: Findings) -> list[Check]:
    """Name the column whose levels explain the residuals, or change together with N, D or C."""
    runs = findings.runs
    # Runs that were screened out may be those of the smaller data set.
    finished = runs[(runs["excluded"] == "") | runs["excluded"].str.startswith("outlier")]
    if "huber" not in findings.fits or not (finished["loss"] > 0).all():
        return []
    measures = {law.column for law in findings.metrics.values()}
    columns = [
        name for name in finished.columns if name not in measures and _is_condition(finished[name])
    ]
    ordered = [name for name in columns if _ordered_by(finished, name)]
    law = findings.fits["huber"].law
    N, D = (finished[name].to_numpy(float) for name in ("num_params", "num_tokens"))
    residuals = np.log(finished["loss"].to_numpy(float)) - np.log(law.loss(N, D))
    tested = [name for name in columns if name not in ordered and not _smooth(finished, name)]
    if not np.isfinite(residuals).all():
        return []
    effects = [_effect(finished, name, residuals) for name in tested]
    found = [e for e in effects if e.p * len(tested) < LEVEL and e.explained > EXPLAINED[0]]
    if found:
        return [_pooled(sorted(found, key=lambda e: -e.explained))]
    named = [name for name in ordered if CONDITIONS & set(words(name))]
    return [_confounded(finished, name) for name in named[:1]]


def _is_condition(cells: pd.Series) -> bool:
    """Whether a column may hold conditions: few values, and not what a run itself decides."""
    name = cells.name
    if name in RUN_COLUMNS or name in ALIASES or plain(name) in OF_THE_RUN:
        return False
    if MARKS & set(words(name)):
        return False
    few = min(MOST_LEVELS, len(cells) // 3)
    if not holds_numbers(cells) or pd.api.types.is_bool_dtype(cells.dtype):
        return 2 <= as_levels(cells).nunique() <= few
    return 2 <= cells.nunique() <= few


def as_levels(cells: pd.Series) -> pd.Series:
    """The values of a column as text; a missing one is a level of its own.

    Args:
        cells: The column.
    """
    return cells.astype(object).where(cells.notna(), "none").astype(str)


def _ordered_by(finished: pd.DataFrame, name: str) -> bool:
    """Whether the levels lie one after the other in N, D or C, so that a law contains them."""
    levels = as_levels(finished[name])
    for quantity in ("num_params", "num_tokens", "compute_budget"):
        order = np.argsort(finished[quantity].to_numpy(float), kind="stable")
        codes = pd.factorize(levels.to_numpy()[order])[0]
        if (np.diff(codes) != 0).sum() < levels.nunique():
            return True
    return False


def _smooth(finished: pd.DataFrame, name: str) -> bool:
    """Whether a numeric column is a function of N and D, such as depth or tokens a parameter."""
    values = pd.to_numeric(finished[name], errors="coerce").to_numpy(float)
    if pd.api.types.is_bool_dtype(finished[name].dtype) or not np.isfinite(values).all():
        return False
    logs = np.log(finished[["num_params", "num_tokens", "compute_budget"]].to_numpy(float))
    orders = [abs(correlation(ranks(values), ranks(column))[0]) for column in logs.T]
    design = np.column_stack([np.ones(len(values)), logs[:, :2]])
    target = np.log(values) if (values > 0).all() else values
    rest = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return max(orders) > ORDERED or 1 - rest.var() / target.var() > FUNCTION_OF_N_AND_D


def _effect(finished: pd.DataFrame, name: str, residuals: Array) -> _Effect:
    """Test one column."""
    levels = as_levels(finished[name])
    trend = _trend(finished)
    rest = residuals - trend @ (trend.T @ residuals)
    scores = normal_quantile((ranks(rest) - 0.5) / len(rest))
    logs = np.log(finished[["num_params", "num_tokens"]].to_numpy(float))
    logs = (logs - logs.mean(axis=0)) / logs.std(axis=0)
    means = pd.get_dummies(levels).to_numpy(float)
    slopes = np.hstack([means, *(means * column[:, None] for column in logs.T)])
    tests = [_f_test(scores, trend, extra) for extra in (means, slopes)]
    p, explained = min(tests)
    shifts = pd.Series(rest, finished.index).groupby(levels).median()
    return _Effect(name, min(2 * p, 1.0), explained, shifts, scores, trend, means)


def _trend(finished: pd.DataFrame) -> Array:
    """An orthonormal basis of trends in ln N, ln D and the passes over the data, shape (n, k)."""
    x, y = np.log(finished[["num_params", "num_tokens"]].to_numpy(float)).T
    x, y = (x - x.mean()) / (x.std() or 1), (y - y.mean()) / (y.std() or 1)
    columns = [np.ones_like(x), x, y, x * x, x * y, y * y]
    passes = np.log(np.fmax(epochs(finished), 1.0))
    if (passes > 0).any():
        columns += [passes, passes * passes, passes * x, passes * y]
    return _orthonormal(np.column_stack(columns))


def _orthonormal(columns: Array) -> Array:
    U, s, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(U[:, s > 1e-8 * s[:1].max(initial=0)])


def _f_test(scores: Array, trend: Array, extra: Array) -> tuple[float, float]:
    """The p value of columns beyond a trend, and the share of the variance that they explain."""
    rest = scores - trend @ (trend.T @ scores)
    beyond = extra - trend @ (trend.T @ extra)
    U, s, _ = np.linalg.svd(beyond, full_matrices=False)
    basis = U[:, s > 1e-6 * np.sqrt(len(scores))]
    q, dof = basis.shape[1], len(scores) - trend.shape[1] - basis.shape[1]
    if q == 0 or dof < LEAST_DOF:
        return 1.0, 0.0
    explained = float(((basis.T @ rest) ** 2).sum() / (rest @ rest))
    F = explained / q / ((1 - explained) / dof + 1e-300)
    return f_tail(F, q, dof), explained


def _pooled(found: list[_Effect]) -> Check:
    best, others = found[0], found[1:5]
    shifts = best.shifts.sort_values()
    low, high = (f"{shifts.index[i]} {100 * np.expm1(shifts.iloc[i]):+.1f} %" for i in (0, -1))
    message = (
        f"'{best.column}' explains {percent(best.explained)} of what the law does not: the runs "
        f"of its {len(shifts)} values lie apart ({low} to {high} of the loss), and one law for all "
        "may hold for none."
    )
    advice = f"Fit each apart: fit(..., by={best.column!r})."
    explained = best.explained
    if others:
        levels = np.hstack([effect.levels for effect in found])
        explained = max(explained, _f_test(best.scores, best.trend, levels)[1])
        names = ", ".join(repr(effect.column) for effect in others)
        message += f" With {names} it is {percent(explained)}."
    sure = explained > EXPLAINED[1] and best.range > SHIFT
    return Check("pooled", "refuse" if sure else "warn", message, advice)


def _confounded(finished: pd.DataFrame, name: str) -> Check:
    message = (
        f"'{name}' has {as_levels(finished[name]).nunique()} values that change together with N, D "
        "or C: its effect on the loss cannot be separated from the law's."
    )
    return Check("confounded", "warn", message, f"Fit each apart: fit(..., by={name!r}).")
