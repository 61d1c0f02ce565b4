"""The best model for a compute budget, free or under a constraint, for many laws at once.

* `optimum`: the compute-optimal model for C FLOPs.
* `at_ratio`: the model with a given number of tokens per parameter (over-training).
* `with_inference`: the best model if C pays for training it and for serving T tokens,
  f(N) D + f(N) T / 3 = C, which is 6 N D + 2 N T = C for f = 6 N. The best N solves
  alpha A N^-alpha / (beta B D^-beta) = s (1 + T / (3 D)), s = d ln f / d ln N
  (Sardana & Frankle 2024, section 2).

None of these N depends on the law's gamma; only the loss does. Each function takes law vectors
(E, ln A, ln B, alpha, beta, gamma), shape (S, 6), and budgets, shape (k,), and returns ln N, ln D
and loss, shape (S, k) each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flops_fit.laws.model.arrays import Array, columns
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.frontier import frontier, log_flops_per_token, loss_at, slope

# ln N, ln D and loss, shape (S, k) each.
Path = tuple[Array, Array, Array]

# A forward pass costs a third of a training step: the backward pass costs twice the forward pass.
FORWARD_SHARE = 1 / 3

# Bisection starts at this ln N ...
SMALLEST = -5.0
# ... and ends at this one, where no budget bounds it.
LARGEST = 80.0
# ... and halves its bracket this many times, which exhausts the 53 bits of a float.
STEPS = 54


def optimum(laws: Array, C: Array, cost: FlopsPerToken) -> Path:
    """The compute-optimal model for each budget."""
    return frontier(laws, C, cost)


def at_ratio(laws: Array, C: Array, cost: FlopsPerToken, *, tokens_per_param: float) -> Path:
    """The model that spends C at a given number of tokens per parameter.

    N and D do not depend on the law here; only the loss does.
    """
    log_C, log_ratio = np.log(np.asarray(C, float))[None, :], np.log(tokens_per_param)

    def unspent(x: Array) -> Array:
        return log_C - log_ratio - x - log_flops_per_token(x, cost)

    x = root(unspent, np.full_like(log_C, SMALLEST), log_C + 0.0)
    x = np.broadcast_to(x, (len(laws), x.shape[1]))
    y = x + log_ratio
    return x, y, loss_at(laws, x, y)


def with_inference(laws: Array, C: Array, cost: FlopsPerToken, *, inference_tokens: float) -> Path:
    """The model of least loss if C pays for training it and for serving `inference_tokens`."""
    log_C = np.broadcast_to(np.log(np.asarray(C, float)), (len(laws), len(C)))
    _, log_A, log_B, alpha, beta, _ = columns(laws)
    served = FORWARD_SHARE * inference_tokens

    def log_tokens(x: Array) -> Array:
        # Training tokens that are left after serving; the floor keeps the logarithm finite where
        # serving alone exceeds the budget.
        affordable = np.exp(log_C - log_flops_per_token(x, cost)) - served
        return np.log(np.maximum(affordable, 1e-300))

    def marginal_gain(x: Array) -> Array:
        # ln of the gain by a larger N, less ln of the loss by the tokens that it costs.
        y = log_tokens(x)
        price = np.log(slope(x, cost)) + log_C - log_flops_per_token(x, cost) - y
        gain = np.log(alpha) + log_A - alpha * x
        return gain - (np.log(beta) + log_B - beta * y) - price

    x = root(marginal_gain, np.full_like(log_C, SMALLEST), log_C + 0.0)
    y = log_tokens(x)
    return x, y, loss_at(laws, x, y)


def in_time(
    laws: Array,
    log_T: Array,
    log_seconds: Callable[[Array], Array],
    log_slope: Callable[[Array], Array],
) -> Path:
    """The model of least loss that trains in T seconds of a device.

    D = T / s(N), and the best N solves alpha A N^-alpha = beta B D^-beta d ln s / d ln N.

    Args:
        laws: Law vectors (E, ln A, ln B, alpha, beta, gamma), shape (S, 6).
        log_T: ln T, shape (k,).
        log_seconds: From ln N to ln s, s the seconds of a token.
        log_slope: The derivative of `log_seconds`.
    """
    _, log_A, log_B, alpha, beta, _ = columns(laws)

    def marginal_gain(x: Array) -> Array:
        gain = np.log(alpha) + log_A - alpha * x
        price = np.log(np.maximum(log_slope(x), 1e-300))
        return gain - (np.log(beta) + log_B - beta * (log_T - log_seconds(x))) - price

    shape = (len(laws), len(log_T))
    x = root(marginal_gain, np.full(shape, SMALLEST), np.full(shape, LARGEST))
    y = log_T - log_seconds(x)
    return x, y, loss_at(laws, x, y)


def root(decreasing: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """The root of a decreasing function, by bisection.

    Args:
        decreasing: Takes and returns arrays of the shape of `low`.
        low: Where the function is positive.
        high: Where the function is negative.
    """
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        positive = decreasing(middle) > 0
        low, high = np.where(positive, middle, low), np.where(positive, high, middle)
    return 0.5 * (low + high)
