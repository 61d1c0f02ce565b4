"""Named laws, sweeps simulated from them, and the shared data."""

import numpy as np
import pandas as pd
import pytest
from named_laws import LAWS
from shared_data import read_shared

from flops_fit.laws.runs.simulate import simulate_isoflop


@pytest.fixture(params=sorted(LAWS))
def named_law(request):
    return LAWS[request.param]


@pytest.fixture
def small():
    return LAWS["small"][0]


@pytest.fixture
def sweep():
    """A function that simulates an IsoFLOP sweep of a named law."""

    def make(name="small", budgets=5, sizes=7, noise=0.0, seed=0, half_width=0.75, **options):
        law, first, last = LAWS[name]
        C = np.geomspace(first, last, budgets)
        return simulate_isoflop(
            law, C, num_sizes=sizes, half_width=half_width, noise=noise, seed=seed, **options
        )

    return make


@pytest.fixture
def sound(sweep):
    """A sweep that raises no check."""
    return sweep(noise=0.002, seed=5)


@pytest.fixture(scope="session")
def epoch_runs():
    return read_shared("epoch_chinchilla/runs240_CNDloss.csv")


@pytest.fixture(scope="session")
def porian_points():
    return read_shared("porian/isoflop_points.csv")


@pytest.fixture
def rough_runs():
    """A real sweep of byte-level GPTs with one learning rate per budget, which suits few sizes."""
    losses = {
        3e10: [2.401, 2.456, 2.557, 2.684, 2.755, 2.755, 2.883],
        1e11: [2.330, 2.258, 2.269, 2.406, 2.493, 2.625, 2.828],
        3e11: [2.266, 2.112, 2.048, 2.043, 2.232, 2.348, 2.551],
    }
    rows = []
    for C, row in losses.items():
        for width, loss in zip([8, 12, 16, 24, 32, 48, 64], row, strict=True):
            flops = 6 * (256 * width + 24 * width**2) + 3072 * width
            run = {"compute_budget": C, "flops": C, "size": width, "loss": loss}
            rows.append({**run, "num_params": 640 * width + 24 * width**2, "num_tokens": C / flops})
    return pd.DataFrame(rows)
