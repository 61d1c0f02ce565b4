"""No prediction contradicts what the sweep has seen, though the law may not hold."""

import numpy as np
import pandas as pd
import pytest
from planted import BUDGETS, LAW

from flops_fit.fit_table import fit
from flops_fit.laws.runs.simulate import simulate_isoflop

# `flops-fit demo`: N, D and loss of byte-level GPTs, one row per budget.
DEMO = {
    9e9: [
        (1396, 919040, 3.2477),
        (2166, 595456, 2.8420),
        (2984, 434176, 2.7059),
        (3850, 337920, 2.6385),
        (5726, 228864, 2.5635),
        (8900, 148992, 2.5649),
        (12506, 107008, 2.5707),
    ],
    2e10: [
        (2166, 1322880, 2.7751),
        (2984, 964480, 2.6660),
        (4764, 609280, 2.4841),
        (6736, 433920, 2.4844),
        (10054, 293760, 2.4641),
        (15150, 197120, 2.4919),
        (22600, 133760, 2.5288),
    ],
    4.2e10: [
        (2984, 2025856, 2.6810),
        (4764, 1279488, 2.5225),
        (6736, 911232, 2.3914),
        (10054, 616448, 2.3858),
        (15150, 413952, 2.4049),
        (24234, 261632, 2.4237),
        (35046, 182784, 2.4649),
    ],
    9e10: [
        (4764, 2741760, 2.4364),
        (6736, 1952640, 2.3533),
        (11256, 1184256, 2.2683),
        (16544, 813312, 2.2467),
        (25916, 526464, 2.2761),
        (39034, 353664, 2.3388),
        (59356, 235008, 2.4149),
    ],
}


def demo():
    rows = [(C, *run) for C, row in DEMO.items() for run in row]
    return pd.DataFrame(rows, columns=["compute_budget", "num_params", "num_tokens", "loss"])


def planted(misfit):
    """A sweep whose ln L differs from the law's by `misfit(t, z)`, and by noise of .3 %.

    t runs from 0 to 1 over the budgets, z from -1 to 1 over a row.
    """
    runs = simulate_isoflop(LAW, BUDGETS, noise=0.003, half_width=0.75, seed=7)
    x, t = np.log(runs["num_params"]), np.log(runs["compute_budget"])
    z = (x - x.groupby(t).transform("mean")) / (np.log(10) * 0.75)
    t = (t - t.min()) / np.ptp(t)
    return runs.assign(loss=runs["loss"] * np.exp(misfit(t, z)))


SWEEPS = {
    "the demo": demo,
    "a top row that sags": lambda: planted(lambda t, z: np.where(t == 1, 0.01 * (2 * z**2 - 1), 0)),
    "rows that grow more curved": lambda: planted(lambda t, z: 0.03 * t * (z**2 - 0.5)),
    "a wave along the rows": lambda: planted(lambda t, z: 0.01 * np.sin(4 * z)),
    "a bend in compute": lambda: planted(lambda t, z: -0.04 * np.maximum(t - 0.6, 0)),
}


@pytest.fixture(scope="module", params=sorted(SWEEPS))
def found(request):
    return fit(SWEEPS[request.param](), num_draws=100)


def test_every_trained_run_lies_in_the_interval_of_a_run(found):
    runs = found.runs
    table = found.predict_loss(runs["num_params"], runs["num_tokens"])
    inside = runs["loss"].between(table["run_low"], table["run_high"])
    top = runs["compute_budget"] > 0.9 * found.largest_budget
    assert inside[top].all()
    assert inside.mean() >= 0.93


def test_the_prediction_at_the_largest_budget_is_what_its_row_saw(found):
    prediction = found.predict(found.largest_budget)
    row = found.optima.iloc[-1]
    assert row["refused"] == ""
    low, high = prediction.new_run_interval
    assert low < row["loss"] < high
    for name in ("num_params", "loss"):
        low, high = getattr(prediction, f"{name}_interval")
        assert row[f"{name}_low"] < high
        assert low < row[f"{name}_high"]


def test_the_run_of_the_predicted_size_is_not_contradicted(found):
    """A run of the top row near the size that is recommended lies in the table's interval."""
    prediction = found.predict(found.largest_budget)
    top = found.runs[found.runs["compute_budget"] > 0.9 * found.largest_budget]
    near = top.loc[(np.log(top["num_params"] / prediction.num_params)).abs().idxmin()]
    low, high = prediction.new_run_interval
    assert low < near["loss"] < high
