"""A table of runs as people write it: N, D, C and loss of an IsoFLOP sweep of a planted law."""

import numpy as np
import pandas as pd


def isoflop_table(seed=0, E=1.82, A=480.0, B=2100.0, alpha=0.35, beta=0.37, noise=0.003):
    """35 runs at five budgets; N_opt at 1e20 FLOPs is 8.95e8."""
    rng, rows = np.random.default_rng(seed), []
    for C in (1e18, 3e18, 1e19, 3e19, 1e20):
        best = (alpha * A / beta / B) ** (1 / (alpha + beta)) * (C / 6) ** (beta / (alpha + beta))
        for N in best * 10 ** np.linspace(-0.75, 0.75, 7):
            D = C / 6 / N
            loss = (E + A / N**alpha + B / D**beta) * np.exp(noise * rng.standard_normal())
            rows.append({"N": float(round(N)), "D": float(round(D)), "C": C, "loss": loss})
    return pd.DataFrame(rows)
