"""The loss of any model: N parameters trained on D tokens, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.check import Check
from flops_fit.laws.checks.of_predictions import (
    check_prediction,
    check_published_constants,
    check_ratio,
    check_reach,
    check_worn_out_data,
)
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.predict.at_model import least_loss, losses_at
from flops_fit.laws.predict.best_recipe import loss_error
from flops_fit.laws.predict.intervals import run_interval
from flops_fit.laws.predict.known import vague_losses
from flops_fit.laws.predict.paths import repetition_law
from flops_fit.laws.predict.reach import require_reach
from flops_fit.validate import raise_problems

LOSS_COLUMNS = (
    "num_params",
    "num_tokens",
    "loss",
    "loss_low",
    "loss_high",
    "run_low",
    "run_high",
)
# Models per block: hundreds of bootstrap laws at many models at once would fill the memory.
BLOCK = 5_000


def predict_losses(
    findings: Findings, N: Any, D: Any, unique: Any = None, *, anyway: bool = False
) -> pd.DataFrame:
    """Predict the loss of models of N parameters trained on D tokens.

    Args:
        findings: The fitted laws.
        N: Parameters, one number or an array.
        D: Tokens, one number or an array; the arguments broadcast.
        unique: Unique tokens among D; None where all are.
        anyway: Whether losses far beyond the runs are wanted nevertheless (`reach`).

    Returns:
        One row per model with `LOSS_COLUMNS`: the law's loss with its 95 % interval, and the
        interval for the loss of one new run; 0 and inf where they are not known.
        `attrs["checks"]` lists the doubts as text.

    Raises:
        ArgumentError: An argument is not positive, or the shapes do not broadcast.
        FitError: No law was fitted, or predictions so far beyond the runs are refused.
    """
    N, D, U = _read(N, D, unique)
    if findings.law is None:
        reasons = [check.message for check in findings.checks if check.severity == "refuse"]
        text = " ".join(reasons) or "see the checks."
        raise FitError(f"no law could be fitted to these runs: {text}", findings.checks)
    x, y = np.log(N), np.log(D)
    with np.errstate(over="ignore"):
        C = np.exp(log_flops_per_token(x, findings.cost) + y)
    if not np.isfinite(C).all():
        raise ArgumentError("num_params, num_tokens: expected a C that is finite, got an overflow")
    require_reach(findings, C, anyway=anyway)
    u = None if U is None else np.log(U)
    parts = [
        losses_at(findings, x[at], y[at], None if u is None else u[at]) for at in _blocks(len(x))
    ]
    value, low, high, noise = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("value", "low", "high", "noise")
    )
    if findings.recipe_law is not None:
        with np.errstate(all="ignore"):
            more = loss_error(findings, x, y, value)
        low = np.maximum(value - np.hypot(value - low, more), np.fmin(least_loss(findings), value))
        high = value + np.hypot(high - value, more)
    run_low, run_high = run_interval(value, low, high, noise).values()
    run_low = np.maximum(run_low, min(findings.least_loss, 0.0))
    columns = (N, D, value, low, high, run_low, run_high)
    frame = pd.DataFrame(dict(zip(LOSS_COLUMNS, columns, strict=True)))
    vague = vague_losses(findings, value, low, high)
    frame.loc[vague, ["loss_low", "run_low"]] = 0.0
    frame.loc[vague, ["loss_high", "run_high"]] = math.inf
    frame.attrs["checks"] = [str(check) for check in loss_checks(findings, N, D, U)]
    return frame


def loss_checks(findings: Findings, N: Array, D: Array, U: Array | None) -> list[Check]:
    """The doubts about the models farthest from the runs.

    Args:
        findings: The fitted laws, with a headline.
        N: Parameters, shape (k,).
        D: Tokens, shape (k,).
        U: Unique tokens, shape (k,); None where all data is new.
    """
    cost = findings.cost
    C = np.exp(log_flops_per_token(np.log(N), cost) + np.log(D))
    checks = check_prediction(float(C.max()) / findings.largest_budget, has_interval=True)
    if not checks:
        checks = check_reach({"num_params": N, "num_tokens": D}, findings.fitted_runs)
    ratios = D / N
    unit = findings.meta.get("data_unit", "tokens")
    for ratio in sorted({float(ratios.min()), float(ratios.max())}):
        checks += check_ratio(ratio, findings.fitted_runs, unit)
    if U is not None:
        law, most = repetition_law(findings), int((D / U).argmax())
        tokens, unique = float(D[most]), float(U[most])
        checks += check_worn_out_data(law, tokens, unique, unit)
        checks += check_published_constants(law, tokens, unique)
    return checks


def _blocks(k: int) -> list[slice]:
    return [slice(start, start + BLOCK) for start in range(0, k, BLOCK)]


def _read(N: Any, D: Any, unique: Any) -> tuple[Array, Array, Array | None]:
    """The arguments as arrays of one shape (k,).

    Raises:
        ArgumentError: Listing every problem.
    """
    given = {"num_params": N, "num_tokens": D}
    if unique is not None:
        given["unique_tokens"] = unique
    arrays: dict[str, Array] = {}
    problems = _misaligned(given)
    for name, value in given.items():
        found = _positive(value)
        if found is None:
            problems.append(
                f"{name}: expected a positive number or an array of them, got {value!r:.80}"
            )
        else:
            arrays[name] = found
    raise_problems(problems)
    try:
        shaped = np.broadcast_arrays(*arrays.values())
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise_problems([f"expected shapes that broadcast, got {shapes}"])
    flat = [np.array(array, float).ravel() for array in shaped]
    return flat[0], flat[1], flat[2] if unique is not None else None


def _misaligned(given: Mapping[str, Any]) -> list[str]:
    """Faults of pandas Series whose rows are not those of the first."""
    series = {name: value for name, value in given.items() if isinstance(value, pd.Series)}
    first = next(iter(series), "")
    return [
        f"{name}: expected the index of {first}: values are taken in order, not by label"
        for name, value in series.items()
        if not value.index.equals(series[first].index)
    ]


def _positive(value: Any) -> Array | None:
    """Positive, finite numbers as an array; None where some are not, or are masked."""
    try:
        if np.ma.isMaskedArray(value):
            return None
        array = np.asarray(value)
        if array.dtype.kind in "bcSUmM" or not array.size:
            return None
        array = array.astype(float)
    except (TypeError, ValueError, OverflowError):
        return None
    return array if bool((np.isfinite(array) & (array > 0)).all()) else None
