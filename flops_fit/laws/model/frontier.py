"""The compute-optimal frontier, for many laws at once.

For L = E + (A / N^alpha + B / D^beta)^gamma and C = f(N) D, the best N solves, whatever gamma is,

    alpha A N^-alpha = beta B (C / f(N))^-beta  s(N),    s = d ln f / d ln N

(Hoffmann et al. 2022, equation 4 for f = 6 N, where s = 1 and N_opt = G (C/6)^{beta/(alpha+beta)}).
The condition is explicit in C, so the frontier on a measured cost curve takes one interpolation per
law. A law is given as its vector (E, ln A, ln B, alpha, beta, gamma). It holds logarithms because B
can reach 1e30 on a bootstrap resample.
"""

from __future__ import annotations

import numpy as np

from flops_fit.laws.model.arrays import Array, columns
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
    """The compute-optimal model of every law at every budget.

    Args:
        laws: Law vectors (E, ln A, ln B, alpha, beta, gamma), shape (S, 6).
        C: Budgets in FLOPs, shape (k,).
        cost: FLOPs per token.

    Returns:
        ln N_opt, ln D_opt and L_opt, shape (S, k) each.
    """
    log_C = np.log(np.asarray(C, float))[None, :]
    x = _closed_form(laws, log_C, cost) if cost.curve is None else _on_curve(laws, log_C, cost)
    y = log_C - log_flops_per_token(x, cost)
    return x, y, loss_at(laws, x, y)


def warranted(laws: Array, y: Array, cost: FlopsPerToken) -> Array:
    """The model size for which a given number of tokens is compute-optimal.

    This is U_N of Muennighoff et al. (2023, section 3.1) if y is the logarithm of the unique
    tokens.

    Args:
        laws: Law vectors (E, ln A, ln B, alpha, beta, gamma), shape (S, 6).
        y: The logarithm of the tokens, shape (k,) or (S, k).
        cost: FLOPs per token.

    Returns:
        ln N, shape (S, k).
    """
    if cost.curve is None:
        _, _, _, alpha, beta, _ = columns(laws)
        return np.asarray((beta * y - beta * _log_tokens(laws, np.zeros(1), 1.0)) / alpha)
    x, _, steepness = cost.curve.grid
    path = np.maximum.accumulate(_log_tokens(laws, x, steepness), axis=1)
    y = np.broadcast_to(y, (len(laws), y.shape[-1]))
    return np.stack([np.interp(y[i], path[i], x) for i in range(len(laws))])


def loss_at(laws: Array, x: Array, y: Array) -> Array:
    """Loss of every law at x = ln N, y = ln D (each (k,) or (S, k)), shape (S, k)."""
    E, log_A, log_B, alpha, beta, gamma = columns(laws)
    u, v = log_A - alpha * x, log_B - beta * y
    with np.errstate(over="ignore"):
        if (gamma == 1).all():
            return E + np.exp(u) + np.exp(v)
        return E + np.exp(gamma * np.logaddexp(u, v))


def log_flops_per_token(x: Array, cost: FlopsPerToken) -> Array:
    """The logarithm of f at x = ln N, shape of x."""
    if cost.curve is None:
        return x + np.log(cost.flops_per_param_token)
    return cost.curve.log_cost(x)


def slope(x: Array, cost: FlopsPerToken) -> Array:
    """The derivative s = d ln f / d ln N at x = ln N, shape of x."""
    return np.ones_like(x) if cost.curve is None else cost.curve.slope(x)


def _closed_form(laws: Array, log_C: Array, cost: FlopsPerToken) -> Array:
    """The logarithm of N_opt where f(N) = kappa N, shape (S, k)."""
    _, log_A, log_B, alpha, beta, _ = columns(laws)
    balance = np.log(alpha) + log_A - np.log(beta) - log_B
    return (balance + beta * (log_C - np.log(cost.flops_per_param_token))) / (alpha + beta)


def _on_curve(laws: Array, log_C: Array, cost: FlopsPerToken) -> Array:
    """The logarithm of N_opt on a measured cost curve, shape (S, k).

    The first-order condition gives ln C on a grid of ln N; interpolation inverts it.
    """
    assert cost.curve is not None
    x, log_f, steepness = cost.curve.grid
    # The running maximum makes the path monotone where the measured slope falls too fast.
    path = np.maximum.accumulate(log_f + _log_tokens(laws, x, steepness), axis=1)
    return np.stack([np.interp(log_C[0], path[i], x) for i in range(len(laws))])


def _log_tokens(laws: Array, x: Array, steepness: Array | float) -> Array:
    """The logarithm of the D for which a model of x = ln N is compute-optimal, shape (S, k)."""
    _, log_A, log_B, alpha, beta, _ = columns(laws)
    balance = np.log(beta) + log_B - np.log(alpha) - log_A
    return np.asarray(alpha * x + balance + np.log(steepness)) / beta
