"""What a law says about compute not yet spent: the best model, or one under a constraint.

* `optimum`: the compute-optimal model for C FLOPs.
* `at_ratio`: a given number of tokens a parameter (over-training).
* `with_inference`: training and then serving T tokens within C, f(N) D + f(N) T / 3, which is
  6 N D + 2 N T where f = 6 N. The best N then solves
  alpha A N^-alpha / (beta B D^-beta) = s (1 + T / (3 D)) (Sardana & Frankle 2024, section 2).

Each takes laws as rows (E, ln A, ln B, alpha, beta), shape (S, 5), and budgets, shape (k,), and
gives ln N, ln D and loss, shape (S, k).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.frontier import frontier, log_flops_per_token, loss_at, slope

Path = tuple[Array, Array, Array]
FORWARD_SHARE = 1 / 3
SMALLEST, STEPS = -5.0, 54  # to the last bit


def optimum(laws: Array, C: Array, cost: FlopsPerToken) -> Path:
    """The compute-optimal model."""
    return frontier(laws, C, cost)


def at_ratio(laws: Array, C: Array, cost: FlopsPerToken, *, tokens_per_param: float) -> Path:
    """The model that spends C at a given number of tokens a parameter; the same for every law."""
    log_C, log_ratio = np.log(np.asarray(C, float))[None, :], np.log(tokens_per_param)

    def spare(x: Array) -> Array:
        return log_C - log_ratio - x - log_flops_per_token(x, cost)

    x = root(spare, np.full_like(log_C, SMALLEST), log_C + 0.0)
    x = np.broadcast_to(x, (len(laws), x.shape[1]))
    y = x + log_ratio
    return x, y, loss_at(laws, x, y)


def with_inference(laws: Array, C: Array, cost: FlopsPerToken, *, inference_tokens: float) -> Path:
    """The model of least loss when C pays for training it and for serving so many tokens."""
    log_C = np.broadcast_to(np.log(np.asarray(C, float)), (len(laws), len(C)))
    _, log_A, log_B, alpha, beta = (laws[:, j : j + 1] for j in range(5))
    served = FORWARD_SHARE * inference_tokens

    def log_tokens(x: Array) -> Array:
        affordable = np.exp(log_C - log_flops_per_token(x, cost)) - served
        return np.log(np.maximum(affordable, 1e-300))

    def spare(x: Array) -> Array:
        y = log_tokens(x)
        priced = np.log(slope(x, cost)) + log_C - log_flops_per_token(x, cost) - y
        gain = np.log(alpha) + log_A - alpha * x
        return gain - (np.log(beta) + log_B - beta * y) - priced

    x = root(spare, np.full_like(log_C, SMALLEST), log_C + 0.0)
    y = log_tokens(x)
    return x, y, loss_at(laws, x, y)


def root(falling: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where a falling function is zero, by bisection."""
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        positive = falling(middle) > 0
        low, high = np.where(positive, middle, low), np.where(positive, high, middle)
    return 0.5 * (low + high)
