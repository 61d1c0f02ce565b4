"""Runs of a planted law, for the tests of what is fitted to them."""

import numpy as np

from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.runs.simulate import simulate_isoflop

LAW = ParametricLaw(1.0, 66.0, 100.0, 0.35, 0.30)
BUDGETS = np.geomspace(1e12, 1e14, 5)


def runs(noise=0.003, seed=0, law=LAW):
    return simulate_isoflop(law, BUDGETS, noise=noise, seed=seed, half_width=0.75)


def measured():
    """The same runs on a cost that is not proportional to N."""
    table = runs()
    f = 6 * table["num_params"] + 900 * table["num_params"] ** 0.5
    flops = f * table["num_tokens"]
    return table.assign(flops=flops, compute_budget=flops)
