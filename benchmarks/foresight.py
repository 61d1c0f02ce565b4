"""Are intervals as wide as `SweepPlan.precision` predicts?

Predicts the precision of a design, then simulates other sweeps and fits each with the defaults of
`flops_fit.fit`. Prints, at the largest budget and at 10 and 100 times it: the predicted factor, the
median factor of the fits, and the share of their intervals that contain the true value. A third of
a second per sweep:

    python benchmarks/foresight.py [sweeps] [noise]
"""

from __future__ import annotations

import sys

import numpy as np

import flops_fit
from flops_fit.laws.design.assumed_law import CHINCHILLA
from flops_fit.laws.design.simulation import expected_intervals
from flops_fit.laws.runs.simulate import simulate_isoflop


def main(sweeps: int = 150, noise: float = 0.003) -> None:
    runs = simulate_isoflop(CHINCHILLA, np.geomspace(1e18, 1e20, 4), num_sizes=5)
    foretold = expected_intervals(runs, law=CHINCHILLA, noise=noise).table
    C = foretold["compute_budget"].to_numpy()
    truth = np.log(CHINCHILLA.n_opt(C))
    halves, holds = [], []
    for seed in range(sweeps):
        errors = noise * np.random.default_rng([1, seed]).standard_normal(len(runs))
        result = flops_fit.fit(runs.assign(loss=runs["loss"] * np.exp(errors)), seed=seed)
        ends = np.log(result.band(C)[["num_params_low", "num_params_high"]].to_numpy())
        halves.append((ends[:, 1] - ends[:, 0]) / 2)
        holds.append((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    print("foretold", foretold["factor"].round(4).tolist())
    print("found   ", np.exp(np.median(halves, axis=0)).round(4).tolist())
    print("covered ", np.mean(holds, axis=0).round(3).tolist())


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((int, float), sys.argv[1:], strict=False)))
