"""The optimal model at given compute budgets, with 95 % intervals.

Every budget gets N, D and the loss of the headline law: on the compute-optimal frontier, or on the
path that a constraint leaves (`Terms`; the paths are in `model.constrained` and
`model.repetition_law`). Then N moves to what all approaches say of it (`witnesses`), and the loss
to what the runs near it say of the law's error (`inference.misfit`).

An interval consists of the uncertainty of the law's parameters (`inference.intervals`), of the
law's misfit, of the cost of a token and, for a new run, of the noise. Where no parametric law could
be fitted, the power laws through the IsoFLOP minima are used, without intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

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
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.predict.known import withhold_unknown
from flops_fit.laws.predict.witnesses import best_size

# A budget up to 10 % above the largest one trained does not count as an extrapolation.
WITHIN = 1.1
# Prefixes of the columns with the parts of an interval, and with the weights of the approaches.
PART, WEIGHT = "part_", "weight_"
_NORMAL = float(stats.norm.ppf(0.5 + LEVEL / 2))
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


@dataclass
class Ends:
    """Values of (ln N, ln D, L) at k budgets with their intervals, shape (3 k,) each."""

    middle: Array
    low: Array = field(default_factory=lambda: np.empty(0))
    high: Array = field(default_factory=lambda: np.empty(0))

    @property
    def half(self) -> Array:
        """Half-widths."""
        return (self.high - self.low) / 2


def predict_intervals(findings: Findings, C: Array, terms: Terms = UNCONSTRAINED) -> pd.DataFrame:
    """Predict N, D and loss at each budget, with 95 % intervals.

    Args:
        findings: The fitted laws.
        C: Budgets in FLOPs, shape (k,).
        terms: The constraint to satisfy.

    Returns:
        One row per budget with `FRONTIER_COLUMNS`, and `new_run_low` and `new_run_high`, the
        interval for the loss of one further run. Interval columns are NaN where only the IsoFLOP
        power laws are available, and 0 and inf where a value is not known (`known`). Further
        columns hold the parts of the intervals (`PART`) and the weights of the approaches in N
        (`WEIGHT`).

    Raises:
        FitError: No law was fitted, or none that can satisfy the constraint.
    """
    if findings.law is None:
        return _from_power_laws(findings, C, terms)
    with np.errstate(all="ignore"):
        of_law = Ends(np.hstack(_path(findings, findings.law.vector[None], C, terms))[0])
        of_law.low, of_law.high = _ends(findings, C, terms)
        ends, noise, shares = _with_misfit(findings, C, terms, of_law)
        error, scatter = _cost_errors(findings, of_law.middle, C, terms)
        ends = _widened(ends, error)
        noise = np.hypot(noise, _NORMAL * scatter[2 * len(C) :])
    frame = _frame(C, ends, noise, findings.least_loss)
    frame = frame.assign(**_parts(of_law, ends, noise), **shares)
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


def _widened(ends: Ends, error: Array) -> Ends:
    """The ends with one more independent error, added in quadrature on either side."""
    if not error.any():
        return ends
    half, middle = _NORMAL * error, ends.middle
    low, high = np.hypot(middle - ends.low, half), np.hypot(ends.high - middle, half)
    return Ends(middle, middle - low, middle + high)


def _with_misfit(
    findings: Findings, C: Array, terms: Terms, of_law: Ends
) -> tuple[Ends, Array, dict[str, Array]]:
    """The law's predictions, moved and widened by what it misses.

    Returns:
        The predictions; how far the loss of one run lies from its mean, at 95 %, shape (k,); and
        the weights of the approaches in N, by the names of their columns.
    """
    x, y, loss = np.split(of_law.middle, 3)
    if findings.misfit is None:
        return of_law, findings.run_noise(loss), {}
    shares: dict[str, Array] = {}
    x_half, _, _ = np.split(of_law.half, 3)
    if terms.tokens_per_param is None:
        free = constrained.optimum(findings.law_vector, C, findings.cost)[0][0]
        best, weights = best_size(findings, C, x_half)
        x, x_half = x + best.value - free, np.fmax(best.half, 0 if _is_free(terms) else x_half)
        shares = {f"{WEIGHT}{name}": weight for name, weight in weights.items()}
        y = _tokens(findings, C, terms, x)
    at = _effective(findings, terms, x, y, free_tokens=np.split(of_law.middle, 3)[1])
    found = findings.misfit.losses(*at)
    low, high = (np.split(end, 3)[2] for end in (of_law.low, of_law.high))
    loss_low = np.fmin(found.low, found.value - (loss - low))
    loss_high = np.fmax(found.high, found.value + (high - loss))
    # At a fixed budget ln D falls as ln N grows, and by as much as f(N) does.
    y_low, y_high = (_tokens(findings, C, terms, x + sign * x_half) for sign in (1, -1))
    if terms.tokens_per_param is not None:
        y_low = y_high = y
    ends = Ends(
        np.concatenate([x, y, found.value]),
        np.concatenate([x - x_half, y_low, loss_low]),
        np.concatenate([x + x_half, y_high, loss_high]),
    )
    return ends, found.noise, shares


def _is_free(terms: Terms) -> bool:
    return not terms.given


def _tokens(findings: Findings, C: Array, terms: Terms, x: Array) -> Array:
    """The log of D if a budget is spent on a model of ln N = x, and on serving it, shape (k,)."""
    affordable = np.exp(np.log(C) - log_flops_per_token(x, findings.cost))
    if terms.inference_tokens is not None:
        affordable = affordable - constrained.FORWARD_SHARE * terms.inference_tokens
    return np.log(np.maximum(affordable, 1e-300))


def _effective(
    findings: Findings, terms: Terms, x: Array, y: Array, free_tokens: Array
) -> tuple[Array, Array]:
    """Logarithms of N and D as the law counts them, shape (k,) each."""
    repetition = findings.repetition
    if terms.tokens_per_param is not None:
        fades = repetition is not None and repetition.params_error is not None
        return repetition.effective(x, y, y) if fades and repetition else (x, y)
    if terms.unique_tokens is None:
        return x, y
    log_U = np.log(np.asarray(terms.unique_tokens, float)) + np.zeros_like(y)
    at_x, at_y = repetition_law(findings).effective(x, y, log_U)
    # A supply that the law's optimum does not exhaust changes nothing.
    enough = log_U >= free_tokens
    return np.where(enough, x, at_x), np.where(enough, y, at_y)


def _parts(of_law: Ends, ends: Ends, noise: Array) -> dict[str, Array]:
    """What the intervals consist of: half-widths of ln N and of L, shape (k,) each."""
    k = len(noise)
    columns = {}
    for name, at in (("num_params", slice(0, k)), ("loss", slice(2 * k, 3 * k))):
        whole, law = ends.half[at], np.fmin(of_law.half[at], ends.half[at])
        columns[f"{PART}{name}_parameters"] = law
        columns[f"{PART}{name}_misfit"] = np.sqrt(np.maximum(whole**2 - law**2, 0.0))
    return {**columns, f"{PART}loss_noise": noise}


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
    return _frame(C, Ends(middle, unknown, unknown), unknown[: len(C)], -math.inf)


def _frame(C: Array, ends: Ends, noise: Array, least_loss: float) -> pd.DataFrame:
    """The table, from values laid out as (ln N, ln D, L), and the noise of one run."""
    columns: dict[str, Array] = {"compute_budget": C}
    with np.errstate(over="ignore"):
        for suffix, part in (("", ends.middle), ("_low", ends.low), ("_high", ends.high)):
            x, y, loss = np.split(part, 3)
            columns |= {f"num_params{suffix}": np.exp(x), f"num_tokens{suffix}": np.exp(y)}
            columns[f"loss{suffix}"] = loss
    columns["tokens_per_param"] = columns["num_tokens"] / columns["num_params"]
    columns |= run_interval(columns["loss"], columns["loss_low"], columns["loss_high"], noise)
    # No loss lies below the low end of E's interval; the loss of one noisy run may, but stays
    # positive.
    for name, least in (("loss_low", least_loss), ("new_run_low", min(least_loss, 0.0))):
        columns[name] = np.fmin(np.maximum(columns[name], least), columns["loss"])
    return pd.DataFrame(columns)


def run_interval(value: Array, low: Array, high: Array, noise: Array) -> dict[str, Array]:
    """The interval of the loss of one new run, from that of its mean and the run's noise."""
    return {
        "new_run_low": value - np.hypot(value - low, noise),
        "new_run_high": value + np.hypot(high - value, noise),
    }
