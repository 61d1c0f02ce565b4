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

from flops_fit.laws.cost import Cost
from flops_fit.laws.solver import Array

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


def frontier(laws: Array, C: Array, cost: Cost) -> tuple[Array, Array, Array]:
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


def loss_at(laws: Array, x: Array, y: Array) -> Array:
    """Loss of every law at x = ln N, y = ln D (each (k,) or (S, k)), shape (S, k)."""
    E, log_A, log_B, alpha, beta = (laws[:, j : j + 1] for j in range(5))
    with np.errstate(over="ignore"):
        return E + np.exp(log_A - alpha * x) + np.exp(log_B - beta * y)


def log_flops_per_token(x: Array, cost: Cost) -> Array:
    """Ln f at x = ln N."""
    if cost.curve is None:
        return x + np.log(cost.flops_per_param_token)
    return cost.curve.log_cost(x)


def _closed_form(laws: Array, log_C: Array, cost: Cost) -> Array:
    _, log_A, log_B, alpha, beta = (laws[:, j : j + 1] for j in range(5))
    balance = np.log(alpha) + log_A - np.log(beta) - log_B
    return (balance + beta * (log_C - np.log(cost.flops_per_param_token))) / (alpha + beta)


def _on_curve(laws: Array, log_C: Array, cost: Cost) -> Array:
    """The first-order condition, explicit in ln C, inverted by interpolation."""
    assert cost.curve is not None
    x, log_f, slope = cost.curve.grid
    _, log_A, log_B, alpha, beta = (laws[:, j : j + 1] for j in range(5))
    balance = np.log(beta) + log_B - np.log(alpha) - log_A
    path = log_f + (alpha * x + balance + np.log(slope)) / beta
    path = np.maximum.accumulate(path, axis=1)
    return np.stack([np.interp(log_C[0], path[i], x) for i in range(len(laws))])
