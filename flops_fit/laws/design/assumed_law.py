"""flops_fit.laws.design.assumed_law."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from flops_fit.laws.model.cost import measure_cost
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.model.parametric_law import ParametricLaw

CHINCHILLA = ParametricLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
MEASURED_FROM, MEASURED_TO = 6e18, 3e21  # Chinchilla's IsoFLOP budgets
TOKENS_PER_PARAM = 20.0


def assumed_law(runs: pd.DataFrame) -> ParametricLaw:
    """Chinchilla's law, moved to where a design expects its optimum.

    Exponents and irreducible loss are Chinchilla's. In the middle of the design's budgets the
    optimum lies at D = 20 N on the measured cost, with the loss that Chinchilla's law has at its
    own optimum of that budget, or of the nearest it was fitted to (6e18 to 3e21 FLOPs): carried
    on to small budgets that law would have the irreducible loss vanish.

    Args:
        runs: The design, a row a run: `compute_budget num_params num_tokens flops`.

    References:
        Hoffmann et al. 2022; Besiroglu et al. 2024, table 1.
    """
    budgets = runs["compute_budget"].to_numpy(float)
    N, D, flops = (runs[name].to_numpy(float) for name in ("num_params", "num_tokens", "flops"))
    cost = measure_cost(N, D, flops)
    C = math.sqrt(budgets.min() * budgets.max())
    x = np.linspace(-5.0, 60.0, 65_001)
    spent = math.log(TOKENS_PER_PARAM) + x + log_flops_per_token(x, cost)
    at = int(np.searchsorted(spent, math.log(C)))
    slope = float(np.gradient(log_flops_per_token(x[at - 1 : at + 2], cost), x[1] - x[0])[1])
    own = CHINCHILLA
    above = own.l_opt(min(max(C, MEASURED_FROM), MEASURED_TO)) - own.E
    of_size = above * own.beta * slope / (own.alpha + own.beta * slope)
    log_N, log_D = x[at], math.log(TOKENS_PER_PARAM) + x[at]
    return ParametricLaw(
        own.E,
        of_size * math.exp(own.alpha * log_N),
        (above - of_size) * math.exp(own.beta * log_D),
        own.alpha,
        own.beta,
        cost.flops_per_param_token,
        cost.curve,
    )
