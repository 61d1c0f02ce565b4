"""The compute-optimal frontier of many laws at once.

For L = E + A / N^alpha + B / D^beta with C = f(N) D, the best N solves

    alpha A N^-alpha = beta B (C / f(N))^-beta  s(N),    s = d ln f / d ln N

(Hoffmann et al. 2022, equation 4 for f = 6 N, where s = 1 and N_opt = G (C/6)^{beta/(alpha+beta)}).
Solved for C instead of N this is explicit, so the frontier of a measured cost curve is one
interpolation a law. Laws are rows (E, ln A, ln B, alpha, beta): logarithms, for B can reach 1e30 on
odd resamples.
"""

from __future__ import annotations

import numpy as np

from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken

FRONTIER_COLUMNS = (
    "compute_budget",
    "num_params",
    "num_params_low",
    "num_params_high",
    "num_tokens",
    "num_tokens_low",
    "num_tokens_high",
    "tokens_per_param",
    "loss",
    "loss_low",
    "loss_high",
)


def frontier(laws: Array, C: Array, cost: FlopsPerToken) -> tuple[Array, Array, Array]:
    """Ln N_opt, ln D_opt and L_opt of every law at every budget.

    Args:
        laws: Rows (E, ln A, ln B, alpha, beta), shape (S, 5).
        C: Budgets in FLOPs, shape (k,).
        cost: FLOPs per token.

    Returns:
        Three arrays of shape (S, k).
    """
    log_C = np.log(np.asarray(C, float))[None, :]
    x = _closed_form(laws, log_C, cost) if cost.curve is None else _on_curve(laws, log_C, cost)
    y = log_C - log_flops_per_token(x, cost)
    return x, y, loss_at(laws, x, y)


def warranted(laws: Array, y: Array, cost: FlopsPerToken) -> Array:
    """Ln of the parameters that tokens warrant: those whose best D they are, shape (S, k).

    Args:
        laws: Rows (E, ln A, ln B, alpha, beta), shape (S, 5).
        y: Ln of the tokens, shape (k,) or (S, k).
        cost: FLOPs per token.
    """
    if cost.curve is None:
        alpha, beta = laws[:, 3:4], laws[:, 4:5]
        return np.asarray((beta * y - beta * _log_tokens(laws, np.zeros(1), 1.0)) / alpha)
    x, _, steepness = cost.curve.grid
    path = np.maximum.accumulate(_log_tokens(laws, x, steepness), axis=1)
    y = np.broadcast_to(y, (len(laws), y.shape[-1]))
    return np.stack([np.interp(y[i], path[i], x) for i in range(len(laws))])


def loss_at(laws: Array, x: Array, y: Array) -> Array:
    """Loss of every law at x = ln N, y = ln D (each (k,) or (S, k)), shape (S, k)."""
    E, log_A, log_B, alpha, beta = (laws[:, j : j + 1] for j in range(5))
    with np.errstate(over="ignore"):
        return E + np.exp(log_A - alpha * x) + np.exp(log_B - beta * y)


def log_flops_per_token(x: Array, cost: FlopsPerToken) -> Array:
    """Ln f at x = ln N."""
    if cost.curve is None:
        return x + np.log(cost.flops_per_param_token)
    return cost.curve.log_cost(x)


def slope(x: Array, cost: FlopsPerToken) -> Array:
    """D ln f / d ln N at x = ln N."""
    return np.ones_like(x) if cost.curve is None else cost.curve.slope(x)


def _closed_form(laws: Array, log_C: Array, cost: FlopsPerToken) -> Array:
    _, log_A, log_B, alpha, beta = (laws[:, j : j + 1] for j in range(5))
    balance = np.log(alpha) + log_A - np.log(beta) - log_B
    return (balance + beta * (log_C - np.log(cost.flops_per_param_token))) / (alpha + beta)


def _on_curve(laws: Array, log_C: Array, cost: FlopsPerToken) -> Array:
    """The first-order condition, explicit in ln C, inverted by interpolation."""
    assert cost.curve is not None
    x, log_f, steepness = cost.curve.grid
    path = np.maximum.accumulate(log_f + _log_tokens(laws, x, steepness), axis=1)
    return np.stack([np.interp(log_C[0], path[i], x) for i in range(len(laws))])


def _log_tokens(laws: Array, x: Array, steepness: Array | float) -> Array:
    """Ln of the tokens on which a model of x = ln N is the best one, shape (S, k)."""
    _, log_A, log_B, alpha, beta = (laws[:, j : j + 1] for j in range(5))
    balance = np.log(beta) + log_B - np.log(alpha) - log_A
    return np.asarray(alpha * x + balance + np.log(steepness)) / beta
