"""Runs of a planted law, for the tests of what is fitted to them."""

from dataclasses import replace

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


def better(multiplier, law=LAW):
    """A law that needs less compute for every loss, by this factor: N and D are worth more."""
    worth = multiplier**0.5
    A, B = law.A * worth**-law.alpha, law.B * worth**-law.beta
    return replace(law, A=A, B=B)


def pair(multiplier, correlation=0.9, noise=0.003, seed=0):
    """Runs of a law and of a better one, whose errors are correlated place by place."""
    rng = np.random.default_rng(seed)
    tables = [runs(noise=0, law=law) for law in (LAW, better(multiplier))]
    common = rng.standard_normal(len(tables[0]))
    for table in tables:
        own = rng.standard_normal(len(table))
        error = correlation**0.5 * common + (1 - correlation) ** 0.5 * own
        table["loss"] *= np.exp(noise * error)
    return tables
