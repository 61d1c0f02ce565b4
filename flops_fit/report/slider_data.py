"""The data of the report's slider: predictions on grids of budgets, ratios D / N and data limits.

The page computes no law. `report.js` interpolates in these grids: values by Lagrange polynomials
through four points in logarithms, and the ends of intervals linearly, because they have kinks where
one method's interval becomes wider than another's.

Budgets are spaced 20 per decade and include the largest budget times every power of ten, so
the page shows exactly what `Result.predict` returns at each stop of the slider. Ratios and data
limits have coarser grids. Where a prediction is refused there is no grid.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.checks.of_predictions import WIDE_RECIPE
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.repetition_law import WORN_OUT
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.predict.paths import UNCONSTRAINED, Terms, repetition_law
from flops_fit.laws.predict.prediction import predict_budget
from flops_fit.laws.predict.reach import WITHIN, reach
from flops_fit.laws.predict.size_lookup import size_to_build, step_of
from flops_fit.records import Size

STOPS_PER_DECADE = 20
COARSE = 5  # the grids of ratios and data limits have every fifth budget
RATIOS_PER_DECADE = 4
# Data limits, in decades below the D that is optimal without a limit.
SHORTAGES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
COLUMNS = {
    "n": "num_params", "n_low": "num_params_low", "n_high": "num_params_high",
    "d": "num_tokens", "d_low": "num_tokens_low", "d_high": "num_tokens_high",
    "l": "loss", "l_low": "loss_low", "l_high": "loss_high",
    "r": "learning_rate", "r_low": "learning_rate_low", "r_high": "learning_rate_high",
    "b": "batch_size", "b_low": "batch_size_low", "b_high": "batch_size_high",
}  # fmt: skip


def slider_grids(findings: Findings) -> dict[str, Any]:
    """The grids as JSON values.

    Raises:
        FitError: No law was fitted to these runs.
    """
    most = reach(findings)
    C = _budgets(findings, most)
    return {
        "largest": findings.largest_budget,
        "beyond": most > WITHIN,
        "c": _logs(C),
        "free": _columns(findings, C, UNCONSTRAINED),
        **_constrained(findings, np.union1d(C[::COARSE], C[-1:])),
        **_sizes(findings, most),
        **_note_on_repetition(findings),
        **_limits_of_recipe(findings),
    }


def _budgets(findings: Findings, most: float) -> Array:
    """The stops, from half the smallest budget to the reach, in FLOPs."""
    smallest = float(findings.fitted_runs["compute_budget"].astype(float).min())
    largest = findings.largest_budget
    down = STOPS_PER_DECADE * math.log10(2 * largest / smallest)
    steps = COARSE * math.ceil(down / COARSE)
    up = math.log10(most)
    # The end of the grid is added, because 1.1 times the largest budget is not a regular stop.
    exponents = np.arange(-steps, STOPS_PER_DECADE * up + 1e-9) / STOPS_PER_DECADE
    return largest * 10.0 ** np.union1d(exponents, up)


def _columns(findings: Findings, C: Array, terms: Terms) -> dict[str, list[float | None]]:
    """Predictions at these budgets, with their intervals: logarithms of all but the loss."""
    # Ends of intervals may be zero or NaN; their logarithms become null.
    with np.errstate(divide="ignore", invalid="ignore"):
        table = predict_intervals(findings, C, terms)
        return {
            short: _rounded(values if short.startswith("l") else np.log(values))
            for short, name in COLUMNS.items()
            if name in table and not np.isnan(values := table[name].to_numpy(float)).all()
        }


def _constrained(findings: Findings, C: Array) -> dict[str, Any]:
    """Predictions at given ratios D / N and under data limits, a row for each."""
    if findings.law is None:
        return {}
    fitted = findings.fitted_runs
    # Decades of D / N.
    trained = np.log10((fitted["num_tokens"] / fitted["num_params"]).to_numpy(float))
    # The ratios of the runs, and one decade on either side.
    low, high = math.floor(trained.min()) - 1, math.ceil(trained.max()) + 1
    ratios = 10.0 ** np.linspace(low, high, RATIOS_PER_DECADE * (high - low) + 1)
    free = predict_intervals(findings, C)["num_tokens"].to_numpy(float)
    limits = [Terms(unique_tokens=free / 10.0**shortage) for shortage in SHORTAGES]
    at_ratios = [_columns(findings, C, Terms(tokens_per_param=float(r))) for r in ratios]
    return {
        "coarse": _logs(C),
        "ratios": {"at": _logs(ratios), "rows": at_ratios},
        "caps": {
            "at": _rounded(np.array(SHORTAGES) * math.log(10)),
            "rows": [_columns(findings, C, limit) for limit in limits],
            "fading": 1 / repetition_law(findings).r_data,
            "worn_out": WORN_OUT,
        },
        "trained": [float(10 ** trained.min()), float(10 ** trained.max())],
        "priced": _measured_sizes(findings),
    }


def _measured_sizes(findings: Findings) -> list[float] | None:
    """The range of N at which FLOPs per token were measured; None if they are proportional to N."""
    curve = findings.cost.curve
    if curve is None:
        return None
    return [math.exp(curve.log_params[0]), math.exp(curve.log_params[-1])]


def _sizes(findings: Findings, most: float) -> dict[str, Any]:
    """Pairs of ln N and size: those trained, and above them those that `size_to_build` returns."""
    runs = findings.runs
    known = runs.loc[runs["size"].notna(), ["size", "num_params"]].drop_duplicates()
    known = known[known["num_params"] > 0].sort_values("num_params")
    pairs: list[tuple[float, Size | None]] = [
        (float(N), _native(size)) for size, N in known.itertuples(index=False)
    ]
    if not pairs:
        return {}
    largest = pairs[-1][0]
    top = largest
    if findings.law is not None:
        farthest = np.array([most * findings.largest_budget])
        top = max(top, float(predict_intervals(findings, farthest)["num_params"].iloc[0]))
    # Building models takes time, so eight sizes; the script interpolates between them.
    beyond = np.geomspace(largest, top, 9)[1:]
    pairs += [(float(N), size_to_build(findings, float(N))) for N in beyond if N > largest]
    sizes = [size for _, size in pairs]
    logs = _logs(np.array([N for N, _ in pairs]))
    return {"sizes": {"n": logs, "is": sizes, "step": step_of(sizes)}}


def _native(size: Any) -> Size:
    """A plain Python value, which JSON can hold."""
    native: Size = size.item() if isinstance(size, np.generic) else size
    return native


def _note_on_repetition(findings: Findings) -> dict[str, str]:
    """The note on every prediction under a data limit, if there is one.

    It says that the constants of repeated data are published ones, not fitted to these runs.
    """
    C = findings.largest_budget
    try:
        free = predict_budget(findings, C, UNCONSTRAINED)
        limited = predict_budget(findings, C, Terms(unique_tokens=free.num_tokens / 10))
    except (FitError, ArgumentError):
        return {}
    notes = [check.message for check in limited.checks if check.code == "repetition-assumed"]
    return {"capped_note": notes[0]} if notes else {}


def _limits_of_recipe(findings: Findings) -> dict[str, Any]:
    """Where `check_recipe` doubts a recipe: its largest budget, and the widest interval."""
    recipe = findings.recipe_law
    if recipe is None:
        return {}
    return {
        "recipe": {"largest": recipe.largest_budget, "tuned": recipe.tuned, "wide": WIDE_RECIPE}
    }


def _logs(values: Array) -> list[float | None]:
    return _rounded(np.log(values), digits=13)


def _rounded(values: Array, digits: int = 9) -> list[float | None]:
    """Numbers with few digits, to keep the page small; None for NaN and infinity."""
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in values.tolist()]
