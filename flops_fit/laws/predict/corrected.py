"""Predictions moved and widened by what the law misses.

N moves to what all approaches say of it (`witnesses`), D follows from the budget, and the loss
moves to what the runs near it say of the law's error (`inference.misfit`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.predict.at_model import Losses, losses_at
from flops_fit.laws.predict.paths import (
    UNCONSTRAINED,
    Ends,
    Terms,
    law_ends,
    log_tokens,
    parameter_errors,
)
from flops_fit.laws.predict.witnesses import best_size


@dataclass(frozen=True)
class Moved:
    """Predictions at k budgets.

    Attributes:
        ends: (ln N, ln D, L) with their intervals.
        noise: How far the loss of one run lies from its mean, at 95 %, shape (k,).
        parameters: Half-width of the interval of L by the law's parameters alone, shape (k,).
        weights: How much each approach counts in N, shape (k,) each.
    """

    ends: Ends
    noise: Array
    parameters: Array
    weights: dict[str, Array] = field(default_factory=dict)


def with_misfit(findings: Findings, C: Array, terms: Terms, of_law: Ends) -> Moved:
    """The law's predictions with its misfit.

    Args:
        findings: The fitted laws.
        C: Budgets in FLOPs, shape (k,).
        terms: The constraint to satisfy.
        of_law: The predictions of the law alone.
    """
    if findings.misfit is None:
        _, _, loss = np.split(of_law.middle, 3)
        errors = np.split(parameter_errors(findings, C, terms), 3)[2]
        return Moved(of_law, findings.run_noise(loss), errors)
    sizes, weights = _sizes(findings, C, terms, of_law)
    x, y = sizes.middle.reshape(2, -1)
    losses = losses_at(findings, x, y)
    if terms.unique_tokens is not None:
        log_U = np.log(np.asarray(terms.unique_tokens, float)) + np.zeros_like(y)
        # A supply that the law's optimum does not exhaust changes nothing.
        enough = log_U >= np.split(of_law.middle, 3)[1]
        losses = _chosen(enough, losses, losses_at(findings, x, y, log_U))
    whole = Ends(
        np.concatenate([sizes.middle, losses.value]),
        np.concatenate([sizes.low, losses.low]),
        np.concatenate([sizes.high, losses.high]),
    )
    return Moved(whole, losses.noise, losses.parameters, weights)


def _chosen(first: np.ndarray, one: Losses, other: Losses) -> Losses:
    """One of two sets of losses at each budget."""
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return Losses(*(np.where(first, a, b) for a, b in pairs))


def _sizes(
    findings: Findings, C: Array, terms: Terms, of_law: Ends
) -> tuple[Ends, dict[str, Array]]:
    """Logarithms of N and D with their intervals, and the weights of the approaches in N."""
    x, y, _ = np.split(of_law.middle, 3)
    if terms.tokens_per_param is not None:
        # Neither depends on the law.
        both = np.concatenate([x, y])
        return Ends(both, both, both), {}
    free = law_ends(findings, C, UNCONSTRAINED) if terms.given else of_law
    best, weights = best_size(findings, C, free.half[: len(C)])
    # A constraint moves every approach by as much as it moves the law.
    x = best.value + (x - free.middle[: len(C)])
    y = log_tokens(findings, C, terms, x)
    half = np.fmax(best.half, of_law.half[: len(C)]) if terms.given else best.half
    few, many = x - half, x + half
    # At a fixed budget ln D falls as ln N grows.
    y_low, y_high = (log_tokens(findings, C, terms, size) for size in (many, few))
    if terms.inference_tokens is not None:
        # A larger model may not afford to serve so many tokens at all.
        y_half = np.fmax(best.half, of_law.half[len(C) : 2 * len(C)])
        y_low, y_high = y - y_half, y + y_half
    low, high = np.concatenate([few, y_low]), np.concatenate([many, y_high])
    return Ends(np.concatenate([x, y]), low, high), weights
