"""The best model size for a budget, from every approach that finds one.

Three approaches witness N_opt: the parametric law with its misfit, the power law through the minima
of the IsoFLOP rows, and that through the envelope of training curves. On public tables none is best
everywhere, and their mean, weighted by the inverse of their variances, is better than each
(docs/method.md). They see the same runs, so their errors count as correlated.

A power law through minima drifts from the truth beyond them: by .15 of ln N for each unit of ln C
on public tables. The drift is updated by back-tests on the rows of the sweep itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from flops_fit.laws.distributions import t_quantile
from flops_fit.laws.findings import Findings
from flops_fit.laws.inference.intervals import LEVEL, NORMAL
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.power_law import PowerLaw

# Drift of a power law in ln N_opt per unit of ln C beyond its points, on public tables, and the
# number of back-tests that this counts as.
DRIFT = 0.15
DRIFT_COUNTS = 4
# Drift of a single row's minimum along the power law: a row counts for budgets near its own.
NEAR_DRIFT = 1.0
# Scatter of minima about a power law in ln N on public tables, and the degrees of freedom that this
# counts as: three minima do not measure it.
SCATTER = 0.06
SCATTER_COUNTS = 3
# Correlation of the errors of two approaches.
CORRELATION = 0.4
# Fewest rows to extrapolate from in a back-test.
LEAST_ROWS = 3
# The points of an envelope come from few curves, so their scatter shows less than their error.
ENVELOPE_ERROR = 0.2


@dataclass(frozen=True)
class Witness:
    """What one approach says of ln N_opt at k budgets, shape (k,) each.

    Attributes:
        name: The approach.
        value: ln N.
        half: Half-width of its 95 % interval.
    """

    name: str
    value: Array
    half: Array


def combined(witnesses: list[Witness]) -> tuple[Witness, Array]:
    """The mean of the witnesses, and their weights, shape (witnesses, k)."""
    values, halves = np.stack([w.value for w in witnesses]), np.stack([w.half for w in witnesses])
    precision = np.where(np.isfinite(halves), 1 / np.maximum(halves, 1e-9) ** 2, 0.0)
    # The first witness alone, where none has an interval.
    precision[0] = np.where(precision.sum(axis=0) > 0, precision[0], 1.0)
    weights = precision / precision.sum(axis=0)
    value = (weights * np.where(precision > 0, values, 0.0)).sum(axis=0)
    parts = weights * np.where(weights > 0, halves, 0.0)
    shared = CORRELATION * parts.sum(axis=0) ** 2
    half = np.sqrt(shared + (1 - CORRELATION) * (parts**2).sum(axis=0))
    return Witness("all", value, half), weights


def best_size(findings: Findings, C: Array, law_half: Array) -> tuple[Witness, dict[str, Array]]:
    """The log of the best N for each budget, and how much each approach counts.

    Args:
        findings: The fitted laws, with a misfit.
        C: Budgets in FLOPs, shape (k,).
        law_half: Half-width of the interval of ln N by the parameters of the law, shape (k,).

    Returns:
        ln N with its half-width, and the weights by approach, shape (k,) each.
    """
    witnesses = find_witnesses(findings, C, law_half)
    best, weights = combined(witnesses)
    return best, {w.name: weight for w, weight in zip(witnesses, weights, strict=True)}


def find_witnesses(findings: Findings, C: Array, law_half: Array) -> list[Witness]:
    """What every approach says of ln N_opt, the parametric law first; arguments as for `best_size`.

    Where there are too few runs to see a misfit, the law is the only one.
    """
    if findings.misfit is None:
        assert findings.law is not None
        return [Witness("parametric law", np.log(findings.law.n_opt(C)), law_half)]
    value, half = findings.misfit.optima(C, findings.cost)
    half = np.fmax(half, law_half)
    # A law that does not hold drifts from the truth as a power law does.
    beyond = _beyond(np.log(C), np.log(findings.fitted_runs["compute_budget"].to_numpy(float)))
    wrong = max(0.0, 1 - 2 * findings.misfit.exact)
    half = np.hypot(half, NORMAL * wrong * DRIFT * beyond)
    return [Witness("parametric law", value, half), *other_witnesses(findings, C)]


def other_witnesses(findings: Findings, C: Array) -> list[Witness]:
    """The power laws through the rows' minima and through the envelope, as far as they can witness.

    Both are left out if data was repeated: minima include the effect of repetition, the law of
    effective tokens does not.

    Args:
        findings: The fitted laws.
        C: Budgets in FLOPs, shape (k,).
    """
    if findings.repetition is not None:
        return []
    found = []
    rows = findings.optima[findings.optima["refused"] == ""]
    if findings.power_laws.n_opt.covariance and len(rows) >= LEAST_ROWS:
        law = findings.power_laws.n_opt
        line = _power_witness("line", law, rows, C)
        both, _ = combined([line, _near_rows(law, rows, C)])
        found.append(Witness("IsoFLOP rows", both.value, both.half))
    laws, doubted = findings.envelope_laws, {check.code for check in findings.checks}
    if laws is not None and laws.n_opt.covariance and "unfinished-curves" not in doubted:
        law = laws.n_opt
        witness = _power_witness("envelope", law, findings.envelope, C)
        half = np.hypot(witness.half, NORMAL * ENVELOPE_ERROR)
        found.append(Witness(witness.name, witness.value, half))
    return found


def _power_witness(name: str, law: PowerLaw, points: pd.DataFrame, C: Array) -> Witness:
    """A power law as a witness: the error of a new point on it, and its drift beyond the points."""
    t = np.log(points["compute_budget"].to_numpy(float))
    x = np.log(points["num_params"].to_numpy(float))
    at = np.log(C)
    beyond = _beyond(at, t)
    quantile = t_quantile(0.5 + LEVEL / 2, len(t) - 2 + SCATTER_COUNTS)
    half = quantile * np.sqrt(_variance(t, x, at))
    half = np.hypot(half, NORMAL * drift(t, x) * beyond)
    return Witness(name, np.log(law(C)), half)


def _beyond(at: Array, t: Array) -> Array:
    """How far each ln C lies beyond the range of others, shape of `at`."""
    return np.maximum(np.maximum(at - t.max(), t.min() - at), 0.0)


def _near_rows(law: PowerLaw, rows: pd.DataFrame, C: Array) -> Witness:
    """The minima of the rows next to each budget, moved to it along the power law through all."""
    t = np.log(rows["compute_budget"].to_numpy(float))
    x, error = np.log(rows["num_params"].to_numpy(float)), rows["log_num_params_se"].to_numpy(float)
    apart = np.log(C)[:, None] - t
    weights = 1 / (np.square(error) + SCATTER**2 + (NEAR_DRIFT * apart) ** 2)
    value = (weights * (x + law.exponent * apart)).sum(axis=1) / weights.sum(axis=1)
    return Witness("nearest rows", value, NORMAL / np.sqrt(weights.sum(axis=1)))


def drift(t: Array, x: Array) -> float:
    """Standard deviation of the error of a line, per unit beyond the points it goes through.

    Each number of points from three up to all but one is a back-test: the line through the first of
    them predicts the others.

    Args:
        t: ln C of the points, shape (m,).
        x: ln N of the points, shape (m,).
    """
    order = np.argsort(t, kind="stable")
    t, x = t[order], x[order]
    found = []
    for k in range(LEAST_ROWS, len(t)):
        error = x[k:] - np.polyval(np.polyfit(t[:k], x[:k], 1), t[k:])
        excess = np.maximum(error**2 - _variance(t[:k], x[:k], t[k:]), 0.0)
        found.append(float(np.mean(excess / (t[k:] - t[k - 1]) ** 2)))
    return float(np.sqrt((DRIFT_COUNTS * DRIFT**2 + sum(found)) / (DRIFT_COUNTS + len(found))))


def _variance(t: Array, x: Array, at: Array) -> Array:
    """Variance of a new point about the line through the points, shape of `at`."""
    line = np.polyfit(t, x, 1)
    r = x - np.polyval(line, t)
    apart = ((t - t.mean()) ** 2).sum()
    s2 = (float(r @ r) + SCATTER_COUNTS * SCATTER**2) / (len(t) - 2 + SCATTER_COUNTS)
    return np.asarray(s2 * (1 + 1 / len(t) + (at - t.mean()) ** 2 / apart))
