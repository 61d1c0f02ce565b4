"""Sweeps simulated from a known law with known noise, for tests and benchmarks."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.model.parametric_law import ParametricLaw


def simulate_isoflop(
    law: ParametricLaw,
    budgets: ArrayLike,
    *,
    num_sizes: int = 7,
    half_width: float = 0.5,
    noise: float = 0.0,
    shared_noise: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Simulate an IsoFLOP sweep around the optimum of a law.

    Args:
        law: The law that the losses follow.
        budgets: Budgets in FLOPs, shape (m,).
        num_sizes: Sizes per budget.
        half_width: Each row spans this many decades of N on either side of the optimum.
        noise: Standard deviation of ln L, independent between runs.
        shared_noise: Standard deviation of a second error of ln L, which the runs with the same
            place in their rows share.
        seed: Seed of the noise.

    Returns:
        One row per run with columns `compute_budget size num_params num_tokens flops loss`.
    """
    rng = np.random.default_rng(seed)
    C = np.asarray(budgets, float)[:, None]
    offsets = np.linspace(-half_width, half_width, num_sizes) * np.log(10)
    x = np.log(law.n_opt(C)) + offsets
    y = np.log(C) - log_flops_per_token(x, law.cost)
    error = noise * rng.standard_normal(x.shape)
    error += shared_noise * rng.standard_normal(num_sizes)
    columns = {
        "compute_budget": np.broadcast_to(C, x.shape),
        "size": np.broadcast_to(np.arange(num_sizes), x.shape),
        "num_params": np.exp(x),
        "num_tokens": np.exp(y),
        "flops": np.broadcast_to(C, x.shape),
        "loss": law.loss(np.exp(x), np.exp(y)) * np.exp(error),
    }
    return pd.DataFrame({name: column.ravel() for name, column in columns.items()})
