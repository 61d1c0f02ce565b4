"""Making a forecast from the laws fitted to some runs."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError, FitError
from flops_fit.forecasts.record import LARGEST, SAME, Forecast, Interval, identified
from flops_fit.laws.check import Check
from flops_fit.laws.checks.of_predictions import check_prediction
from flops_fit.laws.findings import FITTED_BY, Findings
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.predict.losses import loss_checks, predict_losses
from flops_fit.laws.predict.paths import UNCONSTRAINED
from flops_fit.laws.predict.prediction import predict_budget
from flops_fit.laws.predict.size_lookup import size_to_build
from flops_fit.laws.runs.exclusions import epochs
from flops_fit.validate import is_positive, raise_problems
from flops_fit.version import __version__
from flops_fit.warn import warn_user

LONGEST_NOTE = 2_000  # characters


def make_forecast(
    findings: Findings,
    compute_budget: float | None = None,
    num_params: float | None = None,
    num_tokens: float | None = None,
    note: str = "",
    *,
    anyway: bool = False,
) -> Forecast:
    """Forecast the best model for a budget and its loss, or the loss of a given model.

    Args:
        findings: The fitted laws.
        compute_budget: C in FLOPs.
        num_params: N of a given model, instead of a budget.
        num_tokens: D of the given model.
        note: Text to keep with the forecast.
        anyway: Whether a forecast far beyond the runs is wanted nevertheless.

    Raises:
        ArgumentError: Listing every problem with the arguments.
        FitError: No law was fitted, or predictions so far beyond the runs are refused.
    """
    _check(compute_budget, num_params, num_tokens, note)
    if findings.law is None:
        reasons = [check.message for check in findings.checks if check.severity == "refuse"]
        raise FitError(
            f"a forecast needs a law with intervals: {' '.join(reasons)}", findings.checks
        )
    predicted = (
        _of_model(findings, float(num_params), float(num_tokens), anyway)
        if num_params is not None and num_tokens is not None
        else _of_budget(findings, float(compute_budget or 0), anyway)
    )
    N, D, C = (predicted[name] for name in ("num_params", "num_tokens", "compute_budget"))
    of_budget = compute_budget is not None
    if not max(N, D, C) < LARGEST:
        raise ArgumentError(f"expected N, D and C below {LARGEST:g}, got {N:.3g}, {D:.3g}, {C:.3g}")
    far = [check for check in _doubts(findings, predicted) if check.code == "far-extrapolation"]
    if far:
        warn_user(f"the forecast: {' '.join(map(str, far))}")
    return identified(
        Forecast(
            **predicted,
            made_at=datetime.now(UTC).isoformat(),
            name=findings.meta.get("name", ""),
            note=note,
            of_budget=of_budget,
            size=_plain(size_to_build(findings, N)),
            extrapolation=C / findings.largest_budget,
            data_unit=findings.meta.get("data_unit", "tokens"),
            size_param=findings.meta.get("size_param", "size"),
            form=findings.fits["headline"].form,
            law_vector=_law_vector(findings),
            num_runs=len(findings.fitted_runs),
            setting=findings.meta.get("setting", ""),
            data_digest=data_digest(findings.fitted_runs),
            by=fitted_by(findings),
            passes=_passes(findings),
            known_runs=_known(findings.runs, N, D, C if of_budget else None),
            flops_fit=__version__,
        )
    )


def data_digest(runs: pd.DataFrame) -> str:
    """A hash of the runs' N, D and losses that does not depend on their order."""
    columns = (runs[name].astype(float).tolist() for name in ("num_params", "num_tokens", "loss"))
    rows = sorted(f"{N!r} {D!r} {loss!r}" for N, D, loss in zip(*columns, strict=True))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:32]


def is_same(values: Any, value: float) -> np.ndarray:
    """Which of some sizes or budgets are the same as one, within 5 %."""
    with np.errstate(all="ignore"):
        distance = np.abs(np.log(np.asarray(values, float) / value))
        return distance <= np.log1p(SAME) * (1 + 1e-9)


def _of_budget(findings: Findings, C: float, anyway: bool) -> dict[str, Any]:
    prediction = predict_budget(findings, C, UNCONSTRAINED, anyway=anyway)
    return {
        "compute_budget": C,
        "num_params": prediction.num_params,
        "num_tokens": prediction.num_tokens,
        "loss": prediction.loss,
        "loss_interval": prediction.loss_interval,
        "run_interval": prediction.new_run_interval,
        "num_params_interval": prediction.num_params_interval,
        "num_tokens_interval": prediction.num_tokens_interval,
    }


def _of_model(findings: Findings, N: float, D: float, anyway: bool) -> dict[str, Any]:
    row = predict_losses(findings, N, D, anyway=anyway).iloc[0].to_dict()

    def interval(name: str) -> Interval:
        return float(row[f"{name}_low"]), float(row[f"{name}_high"])

    per_token = float(np.exp(log_flops_per_token(np.log(np.array([N])), findings.cost))[0])
    return {
        "compute_budget": per_token * D,
        "num_params": N,
        "num_tokens": D,
        "loss": float(row["loss"]),
        "loss_interval": interval("loss"),
        "run_interval": interval("run"),
        "num_params_interval": None,
        "num_tokens_interval": None,
    }


def _doubts(findings: Findings, predicted: dict[str, Any]) -> list[Check]:
    N, D = (np.array([predicted[name]]) for name in ("num_params", "num_tokens"))
    if predicted["num_params_interval"] is None:
        return loss_checks(findings, N, D, None)
    factor = predicted["compute_budget"] / findings.largest_budget
    return check_prediction(factor, has_interval=True)


def _law_vector(findings: Findings) -> tuple[float, ...]:
    """(E, ln A, ln B, alpha, beta, gamma), and the rates at which repetition fades."""
    law, repetition = findings.law, findings.repetition
    assert law is not None
    vector = law.vector.tolist()
    if repetition is not None:
        vector.append(1 / repetition.r_data)
        if repetition.params_error is not None:
            vector.append(1 / repetition.r_params)
    return tuple(vector)


def fitted_by(findings: Findings) -> tuple[tuple[str, str], ...]:
    """Columns and values of the runs behind the law, if others were fitted apart."""
    try:
        return tuple(dict(json.loads(findings.meta.get(FITTED_BY, "{}"))).items())
    except (ValueError, TypeError):  # a user's own metadata of this name
        return ()


def _passes(findings: Findings) -> float:
    """Most passes of a run behind a law that counts all its tokens in full."""
    if findings.repetition is not None:
        return 1.0
    return float(np.nanmax(np.append(epochs(findings.fitted_runs), 1.0)))


def _known(runs: pd.DataFrame, N: float, D: float, C: float | None) -> int:
    """Number of finished runs of this size, or at this budget if one was asked for."""
    finished = np.isfinite(runs["loss"].to_numpy(float))
    known = is_same(runs["num_params"], N) & is_same(runs["num_tokens"], D)
    if C is not None:
        known |= is_same(runs["compute_budget"], C)
    return int((finished & known).sum())


def _plain(size: Any) -> Any:
    """A size as JSON has it."""
    return size if size is None or isinstance(size, int | float | str) else str(size)


def _check(compute_budget: Any, num_params: Any, num_tokens: Any, note: Any) -> None:
    given = {
        "compute_budget": compute_budget,
        "num_params": num_params,
        "num_tokens": num_tokens,
    }
    problems = [
        f"{name}: expected a positive number, got {value!r}"
        for name, value in given.items()
        if value is not None and not is_positive(value)
    ]
    of_model = [name for name in ("num_params", "num_tokens") if given[name] is not None]
    if (compute_budget is not None) == bool(of_model) or len(of_model) == 1:
        problems.append("give compute_budget, or num_params and num_tokens together")
    if not isinstance(note, str) or len(note) > LONGEST_NOTE or not _is_unicode(note):
        length = f" ({len(note):,} characters)" if isinstance(note, str) else ""
        problems.append(
            f"note: expected Unicode text of at most {LONGEST_NOTE:,} characters, "
            f"got {note!r:.80}{length}: keep longer text in a file, and its name here"
        )
    raise_problems(problems)


def _is_unicode(text: str) -> bool:
    """Whether every character can be written; lone surrogates cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
