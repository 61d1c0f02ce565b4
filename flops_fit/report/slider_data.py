"""What the report's slider reads: predictions on grids of budgets, ratios and caps of data.

The page computes nothing of its own: it interpolates here what `predict_intervals` gave, by four
points a side in logarithms, the ends of intervals linearly (they jump where another method becomes
the wider). Budgets lie 20 a decade around the largest, every tenth of it and every tenfold of it
among them, so that there the page says what `Result.predict` says; ratios and caps lie on coarser
grids. Where `predict` refuses there is no grid.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.model.repetition_law import WORN_OUT
from flops_fit.laws.predict.intervals import (
    UNCONSTRAINED,
    WITHIN,
    Terms,
    predict_intervals,
    repetition_law,
    require_reach,
)
from flops_fit.laws.predict.size_lookup import step_of
from flops_fit.records import Size

if TYPE_CHECKING:
    from flops_fit.laws.findings import Findings
    from flops_fit.laws.model.arrays import Array

A_DECADE = 20
COARSE = 5  # every fifth budget carries the grids of ratios and caps
BEYOND = 1000.0
RATIOS_A_DECADE = 4
SHORTAGES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)  # decades under the free D
COLUMNS = {
    "n": "num_params", "n_low": "num_params_low", "n_high": "num_params_high",
    "d": "num_tokens", "d_low": "num_tokens_low", "d_high": "num_tokens_high",
    "l": "loss", "l_low": "loss_low", "l_high": "loss_high",
}  # fmt: skip


def grids(result: Any) -> dict[str, Any]:
    """All that the slider needs, as JSON can hold it.

    Raises:
        FitError: No law stands on these runs, so that there is nothing to slide along.
    """
    findings: Findings = result.findings
    C = _budgets(findings)
    budgets = {"c": _logs(C), "free": _columns(findings, C, UNCONSTRAINED)}
    told: dict[str, Any] = {
        "largest": findings.largest_budget,
        "beyond": _reach(findings) > WITHIN,
        **budgets,
        **_constrained(findings, np.union1d(C[::COARSE], C[-1:])),
        **_sizes(result),
        **_doubts(result),
    }
    return told


def _reach(findings: Findings) -> float:
    """How far beyond the largest budget something may be said, as a factor."""
    try:
        require_reach(findings, np.array([BEYOND * findings.largest_budget]))
    except FitError:
        return WITHIN
    return BEYOND


def _budgets(findings: Findings) -> Array:
    """20 a decade, from half the smallest budget to as far as something may be said."""
    standing = findings.runs.loc[findings.runs["excluded"] == "", "compute_budget"].astype(float)
    largest = findings.largest_budget
    down = A_DECADE * math.log10(2 * largest / float(standing.min()))
    steps = COARSE * math.ceil(down / COARSE)
    up = math.log10(_reach(findings))
    exponents = np.arange(-steps, A_DECADE * up + 1e-9) / A_DECADE
    return largest * 10.0 ** np.union1d(exponents, up)


def _columns(findings: Findings, C: Array, terms: Terms) -> dict[str, list[float | None]]:
    """N and D in logarithms, loss as it is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        table = predict_intervals(findings, C, terms)
        return {
            short: _rounded(values if short.startswith("l") else np.log(values))
            for short, name in COLUMNS.items()
            if np.isfinite(values := table[name].to_numpy(float)).any()
        }


def _constrained(findings: Findings, C: Array) -> dict[str, Any]:
    """The same at ratios D / N and under caps of data, a row a ratio or cap."""
    if findings.law is None:
        return {}
    good = findings.runs[findings.runs["excluded"] == ""]
    trained = np.log10((good["num_tokens"] / good["num_params"]).to_numpy(float))
    low, high = math.floor(trained.min()) - 1, math.ceil(trained.max()) + 1
    ratios = 10.0 ** np.linspace(low, high, RATIOS_A_DECADE * (high - low) + 1)
    free = predict_intervals(findings, C)["num_tokens"].to_numpy(float)
    caps = [Terms(unique_tokens=free / 10.0**shortage) for shortage in SHORTAGES]
    at_ratios = [_columns(findings, C, Terms(tokens_per_param=float(r))) for r in ratios]
    return {
        "coarse": _logs(C),
        "ratios": {"at": _logs(ratios), "rows": at_ratios},
        "caps": {
            "at": _rounded(np.array(SHORTAGES) * math.log(10)),
            "rows": [_columns(findings, C, cap) for cap in caps],
            "fading": 1 / repetition_law(findings).r_data,
            "worn_out": WORN_OUT,
        },
        "trained": [float(10 ** trained.min()), float(10 ** trained.max())],
        "priced": _priced(findings),
    }


def _priced(findings: Findings) -> list[float] | None:
    """Between which N the FLOPs per token were measured; None where they are proportional to N."""
    curve = findings.cost.curve
    if curve is None:
        return None
    return [math.exp(curve.log_params[0]), math.exp(curve.log_params[-1])]


def _sizes(result: Any) -> dict[str, Any]:
    """Ln N and size: those trained, and above them those that `Result.size_for` gives."""
    known = result.runs.loc[result.runs["size"].notna(), ["size", "num_params"]].drop_duplicates()
    known = known[known["num_params"] > 0].sort_values("num_params")
    pairs = [(float(N), _native(s)) for s, N in known.itertuples(index=False)]
    if pairs:
        ends = result.findings.law
        reach = _reach(result.findings) * result.largest_budget
        top = float(ends.n_opt(reach)) if ends is not None else pairs[-1][0]
        beyond = np.geomspace(pairs[-1][0], max(top, pairs[-1][0]), 9)[1:]
        pairs += [(float(N), result.size_for(float(N))) for N in beyond if N > pairs[-1][0]]
    if not pairs:
        return {}
    sizes = [size for _, size in pairs]
    logs = _logs(np.array([N for N, _ in pairs]))
    return {"sizes": {"n": logs, "is": sizes, "step": step_of(sizes)}}


def _native(size: Any) -> Size:
    native: Size = size.item() if isinstance(size, np.generic) else size
    return native


def _doubts(result: Any) -> dict[str, str]:
    """What is said of every prediction under a cap of data, where anything is."""
    try:
        told = result.predict(result.largest_budget)
        capped = result.predict(result.largest_budget, unique_tokens=told.num_tokens / 10)
    except (FitError, ArgumentError):
        return {}
    notes = [check.message for check in capped.checks if check.code == "repetition-assumed"]
    return {"capped_note": notes[0]} if notes else {}


def _logs(values: Array) -> list[float | None]:
    return _rounded(np.log(values), digits=13)


def _rounded(values: Array, digits: int = 9) -> list[float | None]:
    """Numbers as short as they may be; None for what is not one."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in values.tolist()]
