"""Published rules for the learning rate and the batch size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

EXAMPLES_BY_RULE = 64  # a step, where D counts examples: published rules are for tokens

# (C in FLOPs, N, D in tokens) -> (peak learning rate, batch in tokens)
Rule = Callable[[float, float, float], tuple[float, float]]


def deepseek(C: float, N: float, D: float) -> tuple[float, float]:
    """DeepSeek-AI 2024, *DeepSeek LLM*, section 3.1; fitted from 1e17 FLOPs up."""
    return 0.3118 * C**-0.125, 0.2920 * C**0.3271


def steplaw(C: float, N: float, D: float) -> tuple[float, float]:
    """Li et al. 2025, *Step Law*, section 3; fitted from 5e8 tokens up."""
    return 1.79 * N**-0.713 * D**0.307, 0.58 * D**0.571


def porian(C: float, N: float, D: float) -> tuple[float, float]:
    """Porian et al. 2024, *Resolving discrepancies in compute-optimal scaling*: by N alone."""
    times = N / 108e6
    return 0.0047 * times ** (-1 / 3), 160 * 2048 * times ** (2 / 3)


RULES: dict[str, Rule] = {"deepseek": deepseek, "steplaw": steplaw, "porian": porian}


def batch_by_rule(
    rule: str, C: float, N: float, D: float, unit: str, tokens_per_example: float
) -> int:
    """Examples a step by a rule.

    Args:
        rule: Name of the rule.
        C: Budget in FLOPs.
        N: Parameters.
        D: Units of data.
        unit: What D counts: "tokens" or "examples".
        tokens_per_example: Units of D in an example.
    """
    if unit == "examples":
        return EXAMPLES_BY_RULE
    return max(1, round(RULES[rule](C, N, D)[1] / tokens_per_example))


def rule_of_batches(
    C: ArrayLike, N: ArrayLike, D: ArrayLike, batch_size: ArrayLike, tokens_per_example: float
) -> str:
    """The rule that all these batches follow; empty if none does, or if they are all equal.

    Args:
        C: Budgets in FLOPs, shape (n,).
        N: Parameters, shape (n,).
        D: Tokens, shape (n,), to within 1 %: a run ends with a whole step.
        batch_size: Examples a step, shape (n,).
        tokens_per_example: Tokens in an example.
    """
    batches = np.asarray(batch_size, float)
    if np.unique(batches).size < 2:
        return ""
    places = list(zip(*(np.asarray(part, float) for part in (C, N, D)), strict=True))
    for name, rule in RULES.items():
        by_rule = np.array([rule(*place)[1] for place in places]) / tokens_per_example
        if (np.abs(np.maximum(by_rule, 1.0) - batches) <= 0.5 + 0.01 * batches).all():
            return name
    return ""
