"""Predictions moved and widened by what the law misses.

N moves to what all approaches say of it (`witnesses`), D follows from the budget, and the loss
moves to what the runs near it say of the law's error (`inference.misfit`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.predict.paths import (
    UNCONSTRAINED,
    Ends,
    Terms,
    as_counted,
    law_ends,
    log_tokens,
)
from flops_fit.laws.predict.witnesses import best_size


@dataclass(frozen=True)
class Moved:
    """Predictions at k budgets.

    Attributes:
        ends: (ln N, ln D, L) with their intervals.
        noise: How far the loss of one run lies from its mean, at 95 %, shape (k,).
        weights: How much each approach counts in N, shape (k,) each.
    """

    ends: Ends
    noise: Array
    weights: dict[str, Array] = field(default_factory=dict)


def with_misfit(findings: Findings, C: Array, terms: Terms, of_law: Ends) -> Moved:
    """The law's predictions with its misfit.

    Args:
        findings: The fitted laws.
        C: Budgets in FLOPs, shape (k,).
        terms: The constraint to satisfy.
        of_law: The predictions of the law alone.
    """
    _, y, loss = np.split(of_law.middle, 3)
    if findings.misfit is None:
        return Moved(of_law, findings.run_noise(loss))
    found = _sizes(findings, C, terms, of_law)
    at_x, at_y = found.ends.middle.reshape(2, -1)
    corrected = findings.misfit.losses(*as_counted(findings, terms, at_x, at_y, free_tokens=y))
    low, high = (np.split(end, 3)[2] for end in (of_law.low, of_law.high))
    ends = (
        corrected.value,
        np.fmin(corrected.low, corrected.value - (loss - low)),
        np.fmax(corrected.high, corrected.value + (high - loss)),
    )
    parts = (found.ends.middle, found.ends.low, found.ends.high)
    whole = Ends(*(np.concatenate(pair) for pair in zip(parts, ends, strict=True)))
    return Moved(whole, corrected.noise, found.weights)


def _sizes(findings: Findings, C: Array, terms: Terms, of_law: Ends) -> Moved:
    """Logarithms of N and D with their intervals, and the weights of the approaches."""
    x, y, _ = np.split(of_law.middle, 3)
    if terms.tokens_per_param is not None:
        # Neither depends on the law.
        both = np.concatenate([x, y])
        return Moved(Ends(both, both, both), np.zeros_like(x))
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
    return Moved(Ends(np.concatenate([x, y]), low, high), np.zeros_like(x), weights)
