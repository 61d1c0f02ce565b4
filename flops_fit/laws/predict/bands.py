"""What the laws say of budgets, with 95 % intervals: the frontier, or a path under a constraint."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.checks.of_predictions import check_prediction
from flops_fit.laws.findings import Findings
from flops_fit.laws.inference.intervals import Quantity
from flops_fit.laws.model import constrained
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.repetition_law import RepetitionLaw


@dataclass(frozen=True)
class Terms:
    """What a prediction has to keep to; one of them at most.

    Attributes:
        tokens_per_param: D / N to train at.
        inference_tokens: Tokens the model will serve, paid for out of C.
        unique_tokens: Tokens there are, or so many a budget; beyond, data is repeated.
    """

    tokens_per_param: float | None = None
    inference_tokens: float | None = None
    unique_tokens: float | Array | None = None

    @property
    def given(self) -> dict[str, float | Array]:
        """Those that were asked for, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


FREELY = Terms()
WITHIN = 1.1
AMPLE = 0.7  # in ln D: twice what the data can be wanted to be


def band(findings: Findings, C: Array, terms: Terms = FREELY) -> pd.DataFrame:
    """N, D and loss to expect at each budget, with 95 % intervals.

    Args:
        findings: What was fitted.
        C: Budgets in FLOPs, shape (k,).
        terms: What to keep to.

    Returns:
        A row a budget: `FRONTIER_COLUMNS`, and the ends of the interval for a new run. Intervals
        are NaN where only the IsoFLOP witness stands.

    Raises:
        FitError: No law stands, or none that can keep to the terms.
    """
    if findings.law is None:
        return _band_of_power_laws(findings, C, terms)
    with np.errstate(all="ignore"):
        middle = np.hstack(_path(findings, findings.law.row, C, terms))[0]
        low, high = _ends(findings, C, terms)
        noise = findings.noise_around(low, high, len(C))
    frame = _frame(C, middle, low, high, noise)
    frame["loss_low"] = frame["loss_low"].clip(lower=findings.least_loss)
    frame["new_run_low"] = frame["new_run_low"].clip(lower=min(findings.least_loss, 0.0))
    return frame


def require_reach(findings: Findings, C: Array) -> None:
    """Raise FitError where a prediction at the largest of these budgets is withheld."""
    factor = float(np.max(C)) / findings.largest_budget
    doubts = check_prediction(factor, has_interval=findings.law is not None)
    grave = [doubt for doubt in doubts if doubt.severity == "refuse"]
    if grave:
        raise FitError(f"no prediction without an interval: {grave[0].message}", doubts)
    withheld = findings.not_beyond
    if factor > WITHIN and withheld:
        why = " ".join(check.message for check in withheld)
        raise FitError(
            f"no prediction beyond the largest budget, {findings.largest_budget:.3g} FLOPs: {why} "
            f"{withheld[0].advice}",
            withheld,
        )


def repetition_law(findings: Findings) -> RepetitionLaw:
    """The headline under repetition: constants as fitted, else as published."""
    law, own = findings.law, findings.repetition
    assert law is not None
    if own is None or own.fading_error is None:
        return RepetitionLaw(law)
    return replace(own, law=law)


def _ends(findings: Findings, C: Array, terms: Terms) -> tuple[Array, Array]:
    """Ends of the intervals of (ln N, ln D, L), shape (3 k,) each.

    Under a cap of data N has a kink where the data begin to bind: differences of a whole standard
    error look over it, and where the data are ample the interval is that without a cap.
    """

    def along(terms: Terms) -> Quantity:
        return lambda laws: np.hstack(_path(findings, laws, C, terms))

    if terms.unique_tokens is None:
        return findings.interval(along(terms))
    low, high = findings.interval(along(terms), step=1.0)
    free_low, free_high = findings.interval(along(FREELY))
    most = free_high[len(C) : 2 * len(C)]
    ample = np.tile(np.log(terms.unique_tokens) >= most + AMPLE, 3)
    return np.where(ample, free_low, low), np.where(ample, free_high, high)


def _path(findings: Findings, laws: Array, C: Array, terms: Terms) -> constrained.Path:
    """Ln N, ln D and loss of every law at every budget, shape (S, k) each."""
    cost = findings.cost
    if terms.tokens_per_param is not None:
        x, y, loss = constrained.at_ratio(laws, C, cost, tokens_per_param=terms.tokens_per_param)
        own = findings.repetition
        if own is not None and own.params_error is not None:
            loss = own.losses(laws, x, y, y)
        return x, y, loss
    if terms.inference_tokens is not None:
        return constrained.with_inference(laws, C, cost, inference_tokens=terms.inference_tokens)
    if terms.unique_tokens is not None:
        return repetition_law(findings).capped(laws, C, terms.unique_tokens)
    return constrained.optimum(laws, C, cost)


def _band_of_power_laws(findings: Findings, C: Array, terms: Terms) -> pd.DataFrame:
    """The IsoFLOP witness alone: no intervals."""
    laws = findings.power_laws
    if laws.n_opt.refused or terms.given:
        why = [check.message for check in findings.checks if check.severity == "refuse"]
        raise FitError(f"no law stands on these runs: {' '.join(why)}", findings.checks)
    middle = np.concatenate([np.log(laws.n_opt(C)), np.log(laws.d_opt(C)), laws.l_opt(C)])
    nothing = np.full_like(middle, math.nan)
    return _frame(C, middle, nothing, nothing, nothing[: len(C)])


def _frame(C: Array, middle: Array, low: Array, high: Array, noise: Array) -> pd.DataFrame:
    """Columns from (ln N, ln D, L) side by side, each of shape (3 k,)."""
    columns: dict[str, Array] = {"compute_budget": C}
    with np.errstate(over="ignore"):
        for name, ends in (("", middle), ("_low", low), ("_high", high)):
            x, y, loss = np.split(ends, 3)
            columns |= {f"num_params{name}": np.exp(x), f"num_tokens{name}": np.exp(y)}
            columns[f"loss{name}"] = loss
    columns["tokens_per_param"] = columns["num_tokens"] / columns["num_params"]
    columns["new_run_low"] = columns["loss_low"] - noise
    columns["new_run_high"] = columns["loss_high"] + noise
    return pd.DataFrame(columns)
