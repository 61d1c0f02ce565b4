"""The loss at given models, with its misfit and its 95 % interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flops_fit.laws.findings import Findings
from flops_fit.laws.inference.intervals import Quantity
from flops_fit.laws.inference.misfit import Corrected
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.frontier import loss_at
from flops_fit.laws.predict.paths import repetition_law


@dataclass(frozen=True)
class Losses(Corrected):
    """The law's loss at k models, with its misfit.

    Attributes:
        parameters: Half-width of the interval by independent errors of the law's parameters alone.
    """

    parameters: Array


def losses_at(findings: Findings, x: Array, y: Array, u: Array | None = None) -> Losses:
    """The law's loss at some models, and how uncertain it is.

    Args:
        findings: The fitted laws, with a headline.
        x: ln N, shape (k,).
        y: ln D, shape (k,).
        u: Logarithm of the unique tokens, shape (k,); None where all data is new.
    """
    law = findings.law
    assert law is not None
    quantity = _loss(findings, x, y, u)
    with np.errstate(all="ignore"):
        value = quantity(law.vector[None])[0]
        low, high = findings.interval(quantity)
        parameters = findings.parameter_error(quantity)
        noise = findings.run_noise(value)
        if findings.misfit is not None:
            found = findings.misfit.losses(*_effective(findings, x, y, u))
            low = np.fmin(found.low, found.value - (value - low))
            high = np.fmax(found.high, found.value + (high - value))
            value, noise = found.value, found.noise
    # No interval leaves its value out.
    low = np.minimum(np.maximum(low, least_loss(findings)), value)
    return Losses(value, low, np.maximum(high, value), noise, parameters)


def least_loss(findings: Findings) -> float:
    """A lower bound of the loss: that of E, where the law most likely holds exactly, else zero."""
    misfit = findings.misfit
    if misfit is None or (len(misfit.laws) == 1 and misfit.exact > 0.5):
        return findings.least_loss
    return min(findings.least_loss, 0.0)


def _loss(findings: Findings, x: Array, y: Array, u: Array | None) -> Quantity:
    """The loss at some models as a quantity of the law."""
    if _counts_in_full(findings, u):
        return lambda laws: loss_at(laws, x, y)
    repetition = repetition_law(findings)
    return lambda laws: repetition.losses(laws, x, y, y if u is None else u)


def _counts_in_full(findings: Findings, u: Array | None) -> bool:
    """Whether parameters and tokens count in full; excess parameters may fade on new data too."""
    repetition = findings.repetition
    return u is None and (repetition is None or repetition.params_error is None)


def _effective(findings: Findings, x: Array, y: Array, u: Array | None) -> tuple[Array, Array]:
    """Logarithms of N and D as the law counts them, shape (k,) each."""
    if _counts_in_full(findings, u):
        return x, y
    return repetition_law(findings).effective(x, y, y if u is None else u)
