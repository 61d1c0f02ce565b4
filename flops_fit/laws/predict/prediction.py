"""`Prediction`: the model to train for one budget, and how far to trust that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from flops_fit.errors import ArgumentError
from flops_fit.laws.check import Check
from flops_fit.laws.checks.of_predictions import check_prediction
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.repetition_law import WORN_OUT
from flops_fit.laws.predict.bands import Terms, band, repetition_law, require_reach
from flops_fit.records import Size
from flops_fit.validate import is_positive

BESIDE = 1.5
LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class Prediction:
    """The model to train for one budget. Intervals are (low, high) at 95 %.

    Attributes:
        compute_budget: C, FLOPs.
        num_params: N.
        num_tokens: D, tokens or examples.
        tokens_per_param: D / N.
        loss: Loss it should reach.
        size: Value of the size parameter to build; None where none is recorded.
        extrapolation: C over the largest budget of the sweep.
        num_params_interval: Of N.
        num_tokens_interval: Of D.
        loss_interval: Of the law's loss there.
        new_run_interval: Of the loss that one more run there would show.
        checks: Doubts about this prediction.
        data_unit: What D counts.
    """

    compute_budget: float
    num_params: float
    num_tokens: float
    tokens_per_param: float
    loss: float
    size: Size | None
    extrapolation: float
    num_params_interval: tuple[float, float]
    num_tokens_interval: tuple[float, float]
    loss_interval: tuple[float, float]
    new_run_interval: tuple[float, float]
    checks: tuple[Check, ...] = ()
    data_unit: str = "tokens"

    def __str__(self) -> str:
        size = "" if self.size is None else f", size {self.size}"
        rows = [
            ("parameters", self.num_params, self.num_params_interval, size),
            (self.data_unit, self.num_tokens, self.num_tokens_interval, ""),
            ("loss", self.loss, self.loss_interval, ""),
        ]
        lines = [
            f"{self.compute_budget:.4g} FLOPs, {self.extrapolation:.3g} times the largest budget",
            *(
                f"  {name:<11}{value:.4g} ({_interval_in_words(low, high)}){more}"
                for name, value, (low, high), more in rows
                if math.isfinite(value)
            ),
            f"  {self.tokens_per_param:.3g} {self.data_unit} a parameter",
            *(f"  {check}" for check in self.checks),
        ]
        return "\n".join(lines)


def predict_budget(
    findings: Findings,
    compute_budget: float,
    terms: Terms,
    size_for: Callable[[float], Size | None],
    data_unit: str = "tokens",
) -> Prediction:
    """The model to train for one budget.

    Args:
        findings: What was fitted.
        compute_budget: C in FLOPs.
        terms: What to keep to.
        size_for: Gives the size value for N parameters.
        data_unit: What D counts.

    Raises:
        ArgumentError: The budget or a term is not a positive number, or cannot be met.
        FitError: No law stands on these runs, or none that reaches so far.
    """
    _require_positive(compute_budget, terms)
    C = float(compute_budget)
    _require_data(findings, C, terms)
    row = {str(k): float(v) for k, v in band(findings, np.array([C]), terms).iloc[0].items()}
    require_reach(findings, np.array([C]))
    _require_affordable(row, terms)
    return Prediction(
        compute_budget=C,
        num_params=row["num_params"],
        num_tokens=row["num_tokens"],
        tokens_per_param=row["tokens_per_param"],
        loss=row["loss"],
        size=size_for(row["num_params"]),
        extrapolation=C / findings.largest_budget,
        num_params_interval=_interval(row, "num_params"),
        num_tokens_interval=_interval(row, "num_tokens"),
        loss_interval=_interval(row, "loss"),
        new_run_interval=_interval(row, "new_run"),
        checks=(
            *_doubts(findings, C, row["num_params"]),
            *_far_off(findings, row["tokens_per_param"], terms),
            *_worn_out(findings, row, terms),
            *_assumed(findings, row, terms),
        ),
        data_unit=data_unit,
    )


def _interval_in_words(low: float, high: float) -> str:
    return f"95 %: {low:.4g} to {high:.4g}" if math.isfinite(high) else "no interval"


def _interval(row: Mapping[str, float], name: str) -> tuple[float, float]:
    return row[f"{name}_low"], row[f"{name}_high"]


def _doubts(findings: Findings, C: float, N: float) -> list[Check]:
    curve = findings.cost.curve
    doubts = check_prediction(
        C / findings.largest_budget,
        has_interval=findings.law is not None,
        cost_extrapolated=curve is not None and bool(curve.extrapolates(N)),
    )
    if findings.law is None:
        why = findings.power_laws.l_opt.refused
        said = "from the IsoFLOP power laws alone, without intervals"
        said += f"; no loss told: {why}." if why else "."
        doubts.append(Check("no-parametric-law", "warn", said, "See the checks of the result."))
    return doubts


def _far_off(findings: Findings, ratio: float, terms: Terms) -> list[Check]:
    """A ratio of tokens to parameters that no run came near."""
    if terms.tokens_per_param is None and terms.inference_tokens is None:
        return []
    good = findings.runs[findings.runs["excluded"] == ""]
    trained = (good["num_tokens"] / good["num_params"]).astype(float)
    low, high = float(trained.min()), float(trained.max())
    if low / BESIDE <= ratio <= high * BESIDE:
        return []
    message = f"{ratio:.3g} tokens a parameter, where runs had {low:.3g} to {high:.3g}."
    advice = "Train some runs at such a ratio: the law was never tried there."
    return [Check("ratio-beyond-data", "warn", message, advice)]


def _worn_out(findings: Findings, row: Mapping[str, float], terms: Terms) -> list[Check]:
    """Data seen so often that seeing it once more is worth next to nothing."""
    if terms.unique_tokens is None:
        return []
    times = row["num_tokens"] / float(terms.unique_tokens)
    worth = math.exp(-max(times - 1, 0.0) / repetition_law(findings).r_data)
    if worth >= WORN_OUT:
        return []
    message = (
        f"{float(terms.unique_tokens):.3g} unique are seen {times:.3g} times: one more is worth "
        f"{100 * worth:.2g} % of a new one."
    )
    advice = "More compute hardly lowers the loss: find more data, or spend less."
    return [Check("data-worn-out", "warn", message, advice)]


def _assumed(findings: Findings, row: Mapping[str, float], terms: Terms) -> list[Check]:
    """Constants of repetition that were taken as published, where they matter."""
    if terms.unique_tokens is None or row["num_tokens"] <= terms.unique_tokens:
        return []
    law = repetition_law(findings)
    constants = {"R_D*": (law.r_data, law.fading_error), "R_N*": (law.r_params, law.params_error)}
    listed = " and ".join(
        f"{name} = {value:.4g}"
        for name, (value, error) in constants.items()
        if error is None and math.isfinite(value)
    )
    if not listed:
        return []
    message = (
        f"{listed} of Muennighoff et al. 2023, not fitted to these runs: the interval leaves their "
        "uncertainty out."
    )
    advice = "They are fitted where runs of several epochs, with their unique_tokens, tell them."
    return [Check("repetition-assumed", "note", message, advice)]


def _require_positive(compute_budget: object, terms: Terms) -> None:
    given = {"compute_budget": compute_budget, **terms.given}
    faults = [
        f"{name}: expected a positive number, got {value!r}"
        for name, value in given.items()
        if not is_positive(value)
    ]
    if len(terms.given) > 1:
        faults.append(f"give one of {', '.join(terms.given)}, not several")
    if faults:
        raise ArgumentError(faults)


def _require_data(findings: Findings, C: float, terms: Terms) -> None:
    """Refuse so few data that no law of repetition was ever near."""
    if terms.unique_tokens is None or findings.law is None:
        return
    asked, free = float(terms.unique_tokens), float(findings.law.d_opt(C))
    if asked < max(LEAST_SHARE * free, 1.0):
        raise ArgumentError(
            f"unique_tokens: {asked:.3g} are too few for {C:.3g} FLOPs, which pay for {free:.3g}: "
            f"expected at least {max(LEAST_SHARE * free, 1.0):.2g}"
        )


def _require_affordable(row: Mapping[str, float], terms: Terms) -> None:
    if not (row["num_tokens"] >= 1 and row["num_params"] >= 1):
        asked = ", ".join(f"{name}={value:g}" for name, value in terms.given.items())
        raise ArgumentError(
            f"{row['compute_budget']:.3g} FLOPs do not pay for {asked or 'one token'}: raise the "
            "budget"
        )
