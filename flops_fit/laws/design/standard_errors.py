"""Standard errors that a design will give, from the covariance of the parameters.

For a law, a design and a noise sigma, the covariance is sigma^2 (J'J)^-1, exact to first order. It
gives the standard errors of a, and of N_opt and the loss at any budget. The width and the span of
the grid matter more than the number of runs: SE(a) falls as 1 / (width x span), but only as
1 / sqrt(runs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flops_fit.errors import ArgumentError
from flops_fit.laws.model.arrays import NUM_PARAMETERS, Array
from flops_fit.laws.model.frontier import frontier
from flops_fit.laws.model.parametric_law import ParametricLaw


@dataclass(frozen=True)
class StandardErrors:
    """Standard errors that a design will give.

    Attributes:
        a: Of the exponent a.
        log_num_params: Of ln N_opt at each budget, shape (k,).
        loss: Of L_opt at each budget, shape (k,).
    """

    a: float
    log_num_params: Array
    loss: Array


def standard_errors(
    law: ParametricLaw,
    N: ArrayLike,
    D: ArrayLike,
    *,
    noise: float,
    compute_budgets: ArrayLike,
) -> StandardErrors:
    """Standard errors of a least-squares fit of ln L to runs at these N and D.

    Args:
        law: The law as far as it is known: an assumption, or a first fit.
        N: Parameters of each planned run, shape (n,).
        D: Tokens of each planned run, shape (n,).
        noise: Standard deviation of ln L from run to run.
        compute_budgets: Budgets at which to predict, FLOPs, shape (k,).

    Raises:
        ArgumentError: The design cannot separate the parameters, or the noise is not positive.
    """
    covariance = noise**2 * _inverse_information(law, N, D, noise)
    C = np.atleast_1d(np.asarray(compute_budgets, float))

    def quantity(laws: Array) -> Array:
        """(a, ln N_opt, L_opt) of law vectors of shape (S, p), shape (S, 2 k + 1)."""
        x, _, loss = frontier(laws, C, law.cost)
        return np.hstack([laws[:, 4:5] / (laws[:, 3:4] + laws[:, 4:5]), x, loss])

    G = _gradient(quantity, law.vector)
    errors = np.sqrt(np.einsum("kj,ji,ki->k", G, covariance, G))
    k = len(C)
    return StandardErrors(float(errors[0]), errors[1 : k + 1], errors[k + 1 :])


def _inverse_information(law: ParametricLaw, N: ArrayLike, D: ArrayLike, noise: float) -> Array:
    """(J'J)^-1 in the law vector, shape (6, 6); gamma = 1 is held, and has no error."""
    if not noise > 0:
        raise ArgumentError(f"expected a positive noise, got {noise!r}")
    x, y = np.log(np.asarray(N, float)).ravel(), np.log(np.asarray(D, float)).ravel()
    u, v = law.A * np.exp(-law.alpha * x), law.B * np.exp(-law.beta * y)
    power = (u + v) ** law.gamma
    du, dv = (law.gamma * power / (u + v) * part for part in (u, v))
    J = np.stack([np.ones_like(x), du, dv, -x * du, -y * dv, power * np.log(u + v)], axis=1)
    p = NUM_PARAMETERS - (law.gamma == 1)
    J = J[:, :p] / (law.E + power)[:, None]
    lengths = np.linalg.norm(J, axis=0)
    if len(x) < p or np.linalg.matrix_rank(J / lengths, tol=1e-8) < p:
        words = "five" if p == 5 else "six"
        raise ArgumentError(
            f"this design cannot separate the law's {words} parameters: at least {words} runs are "
            "needed, of several sizes at each of several budgets"
        )
    pinv = np.zeros((NUM_PARAMETERS, len(x)))
    pinv[:p] = np.linalg.pinv(J / lengths, rcond=1e-12) / lengths[:, None]
    return np.asarray(pinv @ pinv.T)


def _gradient(quantity: Callable[[Array], Array], vector: Array) -> Array:
    """Derivatives by the law vector, by central differences, shape (k, 6)."""
    h = 1e-5 * np.maximum(np.abs(vector), 0.1)
    high = quantity(vector + np.diag(h))
    low = quantity(vector - np.diag(h))
    return np.asarray(((high - low) / (2 * h[:, None])).T)
