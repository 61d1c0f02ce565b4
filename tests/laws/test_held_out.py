"""Public sweeps: what is predicted for their largest budgets by the smaller ones.

The tables are not part of this repository; the tests are skipped where they are absent.
"""

import numpy as np
import pytest
from shared_data import read_shared

from flops_fit.fit_table import fit

NAMES = {"N": "num_params", "D": "num_tokens", "C": "compute_budget", "loss": "loss"}


@pytest.fixture(scope="module", params=["llama3", "misfitting", "xlstm_llama_ctx8192"])
def halves(request):
    """A fit without the largest budget, and the runs of that budget."""
    table = read_shared(f"public/{request.param}.csv")
    if "outlier" in table:
        table = table[~table["outlier"].astype(bool)]
    if "flops" in table:
        table = table.assign(C=table["flops"])
    table = table[list(NAMES)].rename(columns=NAMES)
    C = table["compute_budget"]
    largest = C > 0.9 * C.max()
    return fit(table[~largest], num_draws=200), table[largest]


def test_intervals_hold_new_runs(halves):
    result, held_out = halves
    table = result.predict_loss(held_out["num_params"], held_out["num_tokens"])
    loss = held_out["loss"].to_numpy()
    inside = (table["run_low"] < loss) & (loss < table["run_high"])
    assert inside.mean() > 0.85
    # Wide intervals would be no achievement.
    assert np.median(table["run_high"] / table["run_low"] - 1) < 0.1


def test_the_misfit_is_part_of_the_interval(halves):
    result, _ = halves
    parts = result.predict(3 * result.largest_budget).interval_parts["loss"]
    assert parts["misfit"] > 0
    assert set(parts) == {"parameters", "misfit", "noise"}
