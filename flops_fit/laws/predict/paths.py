"""The path of a prediction: N, D and loss of the law at each budget, under a constraint or none."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flops_fit.laws.findings import Findings
from flops_fit.laws.inference.intervals import Quantity
from flops_fit.laws.model import constrained
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.timing.speed import Speed

# In ln D: a supply of twice the tokens that the optimum may need does not bind.
AMPLE = 0.7


@dataclass(frozen=True)
class WallTime:
    """A time to train in.

    Attributes:
        device_seconds: Seconds of one device, over all devices.
        speed: How long models take.
    """

    device_seconds: float
    speed: Speed


@dataclass(frozen=True)
class Terms:
    """The constraint that a prediction must satisfy. At most one field is set.

    Attributes:
        tokens_per_param: D / N to train at.
        inference_tokens: Tokens that the model will serve; C pays for training and serving.
        unique_tokens: Unique tokens available, one number or one per budget, shape (k,). Training
            on more tokens than that repeats data, which lowers their value.
        wall_time: Time to train in, instead of C; C is then about what it pays for.
    """

    tokens_per_param: float | None = None
    inference_tokens: float | None = None
    unique_tokens: float | Array | None = None
    wall_time: WallTime | None = None

    @property
    def given(self) -> dict[str, float | Array | WallTime]:
        """The fields that are set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


UNCONSTRAINED = Terms()


@dataclass(frozen=True)
class Ends:
    """Values of (ln N, ln D, L) at k budgets with their intervals, shape (3 k,) each."""

    middle: Array
    low: Array
    high: Array

    @property
    def half(self) -> Array:
        """Half-widths."""
        return (self.high - self.low) / 2


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


def path(findings: Findings, laws: Array, C: Array, terms: Terms) -> constrained.Path:
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
    if terms.wall_time is not None:
        speed = terms.wall_time.speed
        return constrained.in_time(
            laws,
            np.full(len(C), np.log(terms.wall_time.device_seconds)),
            lambda x: speed.log_seconds(x, cost),
            lambda x: speed.log_slope(x, cost),
        )
    return constrained.optimum(laws, C, cost)


def law_ends(findings: Findings, C: Array, terms: Terms) -> Ends:
    """(ln N, ln D, L) of the headline law, with intervals by its parameters.

    With a cap on unique tokens, N has a kink at the budget where the cap begins to bind. Finite
    differences of a whole standard error average over the kink. Where the supply is ample, the
    interval is the unconstrained one.
    """
    along = _along(findings, C, terms)
    middle = along(findings.law_vector)[0]
    if terms.unique_tokens is None:
        return Ends(middle, *findings.interval(along))
    low, high = findings.interval(along, step=1.0)
    free = law_ends(findings, C, UNCONSTRAINED)
    most_tokens = free.high[len(C) : 2 * len(C)]
    ample = np.tile(np.log(terms.unique_tokens) >= most_tokens + AMPLE, 3)
    return Ends(middle, np.where(ample, free.low, low), np.where(ample, free.high, high))


def parameter_errors(findings: Findings, C: Array, terms: Terms) -> Array:
    """Half-widths of (ln N, ln D, L) by independent errors of the parameters, shape (3 k,)."""
    return findings.parameter_error(_along(findings, C, terms))


def _along(findings: Findings, C: Array, terms: Terms) -> Quantity:
    """(ln N, ln D, L) of laws at all budgets, shape (S, 3 k)."""
    return lambda laws: np.hstack(path(findings, laws, C, terms))


def log_tokens(findings: Findings, C: Array, terms: Terms, x: Array) -> Array:
    """The log of D if a budget is spent on a model of ln N = x, and on serving it, shape (k,)."""
    if terms.wall_time is not None:
        seconds = terms.wall_time.device_seconds
        return np.log(seconds) - terms.wall_time.speed.log_seconds(x, findings.cost)
    affordable = np.exp(np.log(C) - log_flops_per_token(x, findings.cost))
    if terms.inference_tokens is not None:
        affordable = affordable - constrained.FORWARD_SHARE * terms.inference_tokens
    return np.log(np.maximum(affordable, 1e-300))
