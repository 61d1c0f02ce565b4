"""The optimal model at given compute budgets, with 95 % intervals.

Every budget gets N, D and the loss of the headline law: on the compute-optimal frontier, or on the
path that a constraint leaves (`Terms`; the paths are in `model.constrained` and
`model.repetition_law`). The intervals come from the uncertainty of the law's parameters
(`inference.intervals`). Where no parametric law could be fitted, the power laws through the IsoFLOP
minima are used, without intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from flops_fit.errors import FitError
from flops_fit.laws.checks.of_predictions import check_prediction
from flops_fit.laws.findings import Findings
from flops_fit.laws.inference.intervals import LEVEL, Quantity
from flops_fit.laws.model import constrained
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.predict.known import withhold_unknown

# A budget up to 10 % above the largest one trained does not count as an extrapolation.
WITHIN = 1.1
# In ln D: a supply of twice the tokens that the optimum may need does not bind.
AMPLE = 0.7


@dataclass(frozen=True)
class Terms:
    """The constraint that a prediction must satisfy. At most one field is set.

    Attributes:
        tokens_per_param: D / N to train at.
        inference_tokens: Tokens that the model will serve; C pays for training and serving.
        unique_tokens: Unique tokens available, one number or one per budget, shape (k,). Training
            on more tokens than that repeats data, which lowers their value.
    """

    tokens_per_param: float | None = None
    inference_tokens: float | None = None
    unique_tokens: float | Array | None = None

    @property
    def given(self) -> dict[str, float | Array]:
        """The fields that are set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


UNCONSTRAINED = Terms()


def predict_intervals(findings: Findings, C: Array, terms: Terms = UNCONSTRAINED) -> pd.DataFrame:
    """Predict N, D and loss at each budget, with 95 % intervals.

    Args:
        findings: The fitted laws.
        C: Budgets in FLOPs, shape (k,).
        terms: The constraint to satisfy.

    Returns:
        One row per budget with `FRONTIER_COLUMNS`, and `new_run_low` and `new_run_high`, the
        interval for the loss of one further run. Interval columns are NaN where only the IsoFLOP
        power laws are available, and 0 and inf where a value is not known (`known`).

    Raises:
        FitError: No law was fitted, or none that can satisfy the constraint.
    """
    if findings.law is None:
        return _from_power_laws(findings, C, terms)
    with np.errstate(all="ignore"):
        middle = np.hstack(_path(findings, findings.law.vector[None], C, terms))[0]
        low, high = _ends(findings, C, terms)
        error, scatter = _cost_errors(findings, middle, C, terms)
        low, high = _widened(middle, low, high, error)
        noise = findings.noise_around(low, high, len(C), scatter[2 * len(C) :])
    frame = _frame(C, middle, low, high, noise)
    # No loss lies below the low end of E's interval; the loss of one noisy run may, but stays
    # positive.
    frame["loss_low"] = frame["loss_low"].clip(lower=findings.least_loss)
    frame["new_run_low"] = frame["new_run_low"].clip(lower=min(findings.least_loss, 0.0))
    for name in ("num_params", "num_tokens", "loss"):
        frame[f"{name}_low"] = np.minimum(frame[name], frame[f"{name}_low"])
        frame[f"{name}_high"] = np.maximum(frame[name], frame[f"{name}_high"])
    return withhold_unknown(findings, frame)


def require_reach(findings: Findings, C: Array) -> None:
    """Raise FitError if the prediction at the largest of these budgets must be withheld.

    Args:
        findings: The fitted laws.
        C: Budgets in FLOPs, shape (k,).

    Raises:
        FitError: The budget is more than 1000 times the largest one and only power laws without
            intervals are available; or a check refuses every prediction beyond the largest budget.
    """
    factor = float(np.max(C)) / findings.largest_budget
    doubts = check_prediction(factor, has_interval=findings.law is not None)
    refusals = [doubt for doubt in doubts if doubt.severity == "refuse"]
    if refusals:
        raise FitError(f"no prediction without an interval: {refusals[0].message}", doubts)
    withheld = findings.not_beyond
    if factor > WITHIN and withheld:
        reasons = " ".join(check.message for check in withheld)
        raise FitError(
            f"no prediction beyond the largest budget, {findings.largest_budget:.3g} FLOPs: "
            f"{reasons} {withheld[0].advice}",
            withheld,
        )


def repetition_law(findings: Findings) -> RepetitionLaw:
    """The headline law for repeated data.

    R_D* and R_N* are the fitted ones where the runs determine them, and the published ones
    (Muennighoff et al. 2023) elsewhere.
    """
    law, fitted = findings.law, findings.repetition
    assert law is not None
    if fitted is None or fitted.fading_error is None:
        return RepetitionLaw(law)
    return replace(fitted, law=law)


def _ends(findings: Findings, C: Array, terms: Terms) -> tuple[Array, Array]:
    """Ends of the intervals of (ln N, ln D, L), shape (3 k,) each.

    With a cap on unique tokens, N has a kink at the budget where the cap begins to bind. Finite
    differences of a whole standard error average over the kink. Where the supply is ample, the
    interval is the unconstrained one.
    """

    def along(terms: Terms) -> Quantity:
        return lambda laws: np.hstack(_path(findings, laws, C, terms))

    if terms.unique_tokens is None:
        return findings.interval(along(terms))
    low, high = findings.interval(along(terms), step=1.0)
    free_low, free_high = findings.interval(along(UNCONSTRAINED))
    most_tokens = free_high[len(C) : 2 * len(C)]
    ample = np.tile(np.log(terms.unique_tokens) >= most_tokens + AMPLE, 3)
    return np.where(ample, free_low, low), np.where(ample, free_high, high)


def _cost_errors(findings: Findings, middle: Array, C: Array, terms: Terms) -> tuple[Array, Array]:
    """Standard errors of (ln N, ln D, L) by the cost f(N), shape (3 k,) each.

    Returns:
        The error of the smooth f together with, for ln D, the scatter of a single size about it;
        and the effect of that scatter alone, which the loss of one run has too.
    """
    law, cost = findings.law, findings.cost
    assert law is not None

    def change(cost: FlopsPerToken) -> Array:
        kappa, curve = cost.flops_per_param_token, cost.curve
        moved_law = replace(law, flops_per_param_token=kappa, curve=curve)
        moved = replace(findings, cost=cost, law=moved_law)
        return np.hstack(_path(moved, law.vector[None], C, terms))[0] - middle

    scatter = change(cost.scaled(cost.scatter)) if cost.scatter else np.zeros_like(middle)
    tokens = slice(len(C), 2 * len(C))
    parts = [change(away) for away in cost.one_error_away()]
    of_one_size = np.zeros_like(middle)
    of_one_size[tokens] = cost.scatter
    return np.sqrt(np.sum(np.square([of_one_size, *parts]), axis=0)), np.abs(scatter)


def _widened(middle: Array, low: Array, high: Array, error: Array) -> tuple[Array, Array]:
    """The ends with one more independent error, added in quadrature on either side."""
    if not error.any():
        return low, high
    half = stats.norm.ppf(0.5 + LEVEL / 2) * error
    return middle - np.hypot(middle - low, half), middle + np.hypot(high - middle, half)


def _path(findings: Findings, laws: Array, C: Array, terms: Terms) -> constrained.Path:
    """(ln N, ln D, loss) of every law at every budget, shape (S, k) each."""
    cost = findings.cost
    if terms.tokens_per_param is not None:
        x, y, loss = constrained.at_ratio(laws, C, cost, tokens_per_param=terms.tokens_per_param)
        repetition = findings.repetition
        # Where excess parameters fade, they do so on new data too: all D tokens are unique here.
        if repetition is not None and repetition.params_error is not None:
            loss = repetition.losses(laws, x, y, y)
        return x, y, loss
    if terms.inference_tokens is not None:
        return constrained.with_inference(laws, C, cost, inference_tokens=terms.inference_tokens)
    if terms.unique_tokens is not None:
        return repetition_law(findings).capped(laws, C, terms.unique_tokens)
    return constrained.optimum(laws, C, cost)


def _from_power_laws(findings: Findings, C: Array, terms: Terms) -> pd.DataFrame:
    """Predict from the IsoFLOP power laws alone, without intervals."""
    laws = findings.power_laws
    if laws.n_opt.refused or terms.given:
        reasons = [check.message for check in findings.checks if check.severity == "refuse"]
        raise FitError(
            f"no law could be fitted to these runs: {' '.join(reasons)}", findings.checks
        )
    middle = np.concatenate([np.log(laws.n_opt(C)), np.log(laws.d_opt(C)), laws.l_opt(C)])
    unknown = np.full_like(middle, math.nan)
    return _frame(C, middle, unknown, unknown, unknown[: len(C)])


def _frame(C: Array, middle: Array, low: Array, high: Array, noise: Array) -> pd.DataFrame:
    """The table, from values and ends laid out as (ln N, ln D, L), each of shape (3 k,)."""
    columns: dict[str, Array] = {"compute_budget": C}
    with np.errstate(over="ignore"):
        for suffix, ends in (("", middle), ("_low", low), ("_high", high)):
            x, y, loss = np.split(ends, 3)
            columns |= {f"num_params{suffix}": np.exp(x), f"num_tokens{suffix}": np.exp(y)}
            columns[f"loss{suffix}"] = loss
    columns["tokens_per_param"] = columns["num_tokens"] / columns["num_params"]
    columns["new_run_low"] = columns["loss_low"] - noise
    columns["new_run_high"] = columns["loss_high"] + noise
    return pd.DataFrame(columns)
