"""Sweeps that found their recipe: a planted recipe law, and runs that cost what it says."""

import numpy as np
import pandas as pd
from planted import BUDGETS, LAW

from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.laws.runs.simulate import simulate_isoflop

TOKENS = 16.0  # in an example


def recipe_law(error=0.1, **changes):
    """A recipe law with bowls of a small model, and errors of its levels and exponents."""
    values = {
        "vector": (np.log(0.01), -0.3, 0.05, np.log(4), 0.6, np.log(0.05), np.log(0.03), -0.4),
        "covariance": tuple(
            map(tuple, np.diag([error**2, *[(error / 3) ** 2] * 2] * 2 + [0.04] * 2))
        ),
        "centre": (3e4, 4e6),
        "tuned": ("learning_rate", "batch_size"),
        "noise": 0.003,
        "tokens_per_example": TOKENS,
        "largest": (1e6, 1e8),
        "largest_budget": float(BUDGETS.max()),
    }
    return RecipeLaw(**{**values, **changes})


def with_pilot(recipe=None, noise=0.003, seed=0, off=1.0, tilt=0.0):
    """A sweep of the planted law with a pilot at its smallest budget and a check at its largest.

    Args:
        recipe: The recipe law that holds.
        noise: Standard deviation of ln L.
        seed: Of the noise.
        off: By how much the sweep's own learning rates are off.
        tilt: By which power of N they are off beside that, about the first budget's best size.
    """
    recipe = recipe or recipe_law()
    rng = np.random.default_rng(seed + 1)
    sweep = simulate_isoflop(LAW, BUDGETS, noise=noise, seed=seed, half_width=0.75)
    N, D = (sweep[name].to_numpy(float) for name in ("num_params", "num_tokens"))
    sweep["batch_size"] = np.maximum(np.round(recipe.batch_size(N, D)), 1)
    off = off * (N / float(LAW.n_opt(BUDGETS[0]))) ** tilt
    sweep["learning_rate"] = off * recipe.learning_rate(N, D, sweep["batch_size"])
    sweep["role"] = "sweep"
    first, last = sweep[sweep["compute_budget"] == BUDGETS[0]], sweep[-7:]
    grid = [(r, b) for r in (0.25, 0.5, 1, 2, 4) for b in (0.5, 1, 2)]
    cells = [*_cells(first.iloc[[1, 3, 5]], grid, "pilot")]
    cells += _cells(last.iloc[[0, -1]], [(0.5, 1), (2, 1), (1, 0.5), (1, 2)], "check")
    other = pd.DataFrame(cells)
    runs = pd.concat([sweep, other], ignore_index=True)
    excess = recipe.excess(*(runs[c].to_numpy(float) for c in _RECIPE))
    loss = LAW.loss(runs["num_params"].to_numpy(float), runs["num_tokens"].to_numpy(float))
    runs["loss"] = loss * np.exp(excess + noise * rng.standard_normal(len(runs)))
    return runs.assign(trial_id=[f"{i:016x}" for i in range(len(runs))])


_RECIPE = ("num_params", "num_tokens", "learning_rate", "batch_size")


def _cells(rows, grid, role):
    for row in rows.to_dict("records"):
        for rate, batch in grid:
            yield {
                **row,
                "learning_rate": row["learning_rate"] * rate,
                "batch_size": max(row["batch_size"] * batch, 1),
                "role": role,
            }
