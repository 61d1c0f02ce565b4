"""`assumed_law`: the law that a design is simulated with, before anything has been trained."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from flops_fit.laws.fitting.cost import measure_cost
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.model.parametric_law import ParametricLaw

# Besiroglu et al. 2024, table 1.
CHINCHILLA = ParametricLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
# Smallest and largest IsoFLOP budget of Hoffmann et al. (2022, section 3.2), FLOPs.
MEASURED_FROM = 6e18
MEASURED_TO = 3e21
# The ratio D / N at the optimum (Hoffmann et al. 2022).
TOKENS_PER_PARAM = 20.0


def assumed_law(runs: pd.DataFrame) -> ParametricLaw:
    """Chinchilla's law, moved to where a design expects its optimum.

    The exponents and the irreducible loss are Chinchilla's. In the middle of the design's budgets
    the optimum lies at D = 20 N on the measured cost. Its loss there is that of Chinchilla's law at
    the same budget, or at the nearest budget to which that law was fitted (6e18 to 3e21 FLOPs).
    Extrapolated to small budgets, E would be a negligible part of the loss.

    Args:
        runs: The design, one row per run: `compute_budget num_params num_tokens flops`.

    References:
        Hoffmann et al. 2022; Besiroglu et al. 2024, table 1.
    """
    budgets = runs["compute_budget"].to_numpy(float)
    N, D, flops = (runs[name].to_numpy(float) for name in ("num_params", "num_tokens", "flops"))
    cost = measure_cost(N, D, flops)
    C = math.sqrt(budgets.min() * budgets.max())
    # Find x = ln N with D = 20 N and f(N) D = C on a fine grid.
    x = np.linspace(-5.0, 60.0, 65_001)
    spent = math.log(TOKENS_PER_PARAM) + x + log_flops_per_token(x, cost)
    at = int(np.searchsorted(spent, math.log(C)))
    slope = float(np.gradient(log_flops_per_token(x[at - 1 : at + 2], cost), x[1] - x[0])[1])
    known = CHINCHILLA
    reducible = known.l_opt(min(max(C, MEASURED_FROM), MEASURED_TO)) - known.E
    # At the optimum alpha A N^-alpha = beta B D^-beta s, which splits the reducible loss.
    size_term = reducible * known.beta * slope / (known.alpha + known.beta * slope)
    log_N, log_D = x[at], math.log(TOKENS_PER_PARAM) + x[at]
    return ParametricLaw(
        known.E,
        size_term * math.exp(known.alpha * log_N),
        (reducible - size_term) * math.exp(known.beta * log_D),
        known.alpha,
        known.beta,
        cost.flops_per_param_token,
        cost.curve,
    )
