"""Runs to which no parametric law can be fitted."""

import numpy as np
import pandas as pd
from checked import severities

from flops_fit.result import fit


def test_too_few_runs(sweep):
    few = sweep(budgets=1)
    assert severities(few)["too-few-runs"] == "refuse"
    assert fit(few).law is None


def test_runs_of_one_ratio(sweep, small):
    N = np.geomspace(1e4, 1e7, 12)
    line = pd.DataFrame({"N": N, "D": 20 * N, "loss": small.loss(N, 20 * N)})
    assert severities(line)["one-direction"] == "refuse"
    assert "one-direction" not in severities(sweep())


def test_losses_that_no_law_fits(sound):
    odd = sound.copy()
    odd.loc[3, "loss"] = 1e9
    assert severities(odd)["odd-losses"] == "refuse"
    assert "odd-losses" not in severities(sound)
