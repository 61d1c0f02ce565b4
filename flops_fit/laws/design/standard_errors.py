"""What a sweep will be able to say, before it is run.

For a law, a design and a noise, the covariance of the five parameters is sigma^2 (J'J)^-1, exact to
first order; from it the standard error of a and of N_opt at any budget. Width and span of the grid
beat the number of runs: SE(a) falls as 1 / (width x span), but only as 1 / sqrt(runs).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flops_fit.errors import ArgumentError
from flops_fit.laws.fitting.parametric import NAMES
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.frontier import frontier
from flops_fit.laws.model.parametric_law import ParametricLaw


@dataclass(frozen=True)
class Expectation:
    """Standard errors a design will give.

    Attributes:
        standard_errors: Of E, ln A, ln B, alpha, beta, by name (ln A and ln B as "A" and "B":
            relative).
        a: Standard error of the exponent a.
        compute_budget: Budgets asked about, FLOPs, shape (k,).
        log_num_params: Standard error of ln N_opt there, shape (k,).
        loss: Standard error of L_opt there, shape (k,).
        num_runs: Runs of the design.
    """

    standard_errors: dict[str, float]
    a: float
    compute_budget: Array
    log_num_params: Array
    loss: Array
    num_runs: int


def expect(
    law: ParametricLaw,
    N: ArrayLike,
    D: ArrayLike,
    *,
    noise: float,
    compute_budgets: ArrayLike,
) -> Expectation:
    """Standard errors of a least-squares fit of ln L to runs at these N and D.

    Args:
        law: The law as far as it is known: a guess, or a first fit.
        N: Parameters of each planned run, shape (n,).
        D: Tokens of each, shape (n,).
        noise: Standard deviation of ln L from run to run.
        compute_budgets: Where to foretell, FLOPs, shape (k,).

    Raises:
        ArgumentError: The design cannot tell five parameters apart, or noise is not positive.
    """
    covariance = noise**2 * _inverse_information(law, N, D, noise)
    C = np.atleast_1d(np.asarray(compute_budgets, float))

    def quantity(laws: Array) -> Array:
        x, _, loss = frontier(laws, C, law.cost)
        return np.hstack([laws[:, 4:5] / (laws[:, 3:4] + laws[:, 4:5]), x, loss])

    G = _gradient(quantity, law.vector)
    errors = np.sqrt(np.einsum("kj,ji,ki->k", G, covariance, G))
    own = np.sqrt(covariance.diagonal())
    k = len(C)
    return Expectation(
        standard_errors=dict(zip(NAMES, own.tolist(), strict=True)),
        a=float(errors[0]),
        compute_budget=C,
        log_num_params=errors[1 : k + 1],
        loss=errors[k + 1 :],
        num_runs=len(np.atleast_1d(np.asarray(N, float))),
    )


def more_runs(expected: float, wanted: float, num_runs: int) -> int:
    """Runs to add, spread as the design's own, to bring a standard error down to one wanted.

    Args:
        expected: Standard error the design gives.
        wanted: Standard error wanted.
        num_runs: Runs of the design.
    """
    if not (expected > 0 and wanted > 0 and num_runs > 0):
        raise ArgumentError("expected positive standard errors and a positive number of runs")
    return max(0, math.ceil(num_runs * ((expected / wanted) ** 2 - 1) - 1e-9))


def _inverse_information(law: ParametricLaw, N: ArrayLike, D: ArrayLike, noise: float) -> Array:
    """(J'J)^-1 in E, ln A, ln B, alpha, beta."""
    if not noise > 0:
        raise ArgumentError(f"expected a positive noise, got {noise!r}")
    x, y = np.log(np.asarray(N, float)).ravel(), np.log(np.asarray(D, float)).ravel()
    u, v = law.A * np.exp(-law.alpha * x), law.B * np.exp(-law.beta * y)
    J = np.stack([np.ones_like(x), u, v, -x * u, -y * v], axis=1) / (law.E + u + v)[:, None]
    lengths = np.linalg.norm(J, axis=0)
    if len(x) < 5 or np.linalg.matrix_rank(J / lengths, tol=1e-8) < 5:
        raise ArgumentError(
            "this design cannot tell the law's five parameters apart: at least five runs are "
            "needed, of several sizes at each of several budgets"
        )
    pinv = np.linalg.pinv(J / lengths, rcond=1e-12) / lengths[:, None]
    return np.asarray(pinv @ pinv.T)


def _gradient(quantity: Callable[[Array], Array], row: Array) -> Array:
    """Central differences, shape (k, 5)."""
    h = 1e-5 * np.maximum(np.abs(row), 0.1)
    high = quantity(row + np.diag(h))
    low = quantity(row - np.diag(h))
    return np.asarray(((high - low) / (2 * h[:, None])).T)
