"""Do 95 % intervals contain the true value in 95 % of simulated sweeps?

Four laws x three noise levels x three designs. Each sweep goes through the whole default pipeline
of `flops_fit.fit`: outliers, refit, back-test, intervals. Prints one row per combination: the root
mean square error and the median bias of a, of ln N_opt and of L_opt at 100 times the largest
budget, the share of intervals that contain the true value, and how often alpha = beta or gamma was
chosen.
About 10 sweeps per second on one core:

    python benchmarks/coverage.py [sweeps] [out.csv] [law, design or noise ...]
"""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.frontier import frontier
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.laws.runs.table import read_runs

LAWS = {
    "chinchilla": (ParametricLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658), 1e18),
    "small": (ParametricLaw(1.0, 66.0, 100.0, 0.35, 0.30), 1e12),
    "asymmetric": (ParametricLaw(1.7, 2100.0, 21.0, 0.465, 0.155), 1e18),
    "symmetric": (ParametricLaw(1.8, 450.0, 1200.0, 0.35, 0.35), 1e18),
}
NOISES = (0.001, 0.003, 0.01)
DESIGNS = {"5x7": (5, 7, 2.0), "4x5": (4, 5, 2.0), "3x5": (3, 5, 1.0)}  # budgets, sizes, decades
BEYOND = 100.0


@dataclass(frozen=True)
class Sweep:
    """Results of one simulated sweep: a, ln N and L with their low and high ends, and the form.

    N and L of `predicted` are those of `Result.predict`; those of `of_law` are the law's alone,
    without its misfit and the other approaches.
    """

    predicted: tuple[Array, Array, Array]
    of_law: tuple[Array, Array, Array]
    form: str
    dropped: int


def quantities(laws: Array, C: Array, law: ParametricLaw) -> Array:
    a = laws[:, 4:5] / (laws[:, 3:4] + laws[:, 4:5])
    x, _, loss = frontier(laws, C, law.cost)
    return np.hstack([a, x, loss])


def one_sweep(
    law: ParametricLaw, budgets: Array, sizes: int, noise: float, seed: int
) -> Sweep | None:
    """Simulate and fit one sweep; None if no law is fitted, which is not a missed interval."""
    runs = simulate_isoflop(law, budgets, num_sizes=sizes, noise=noise, seed=seed)
    options = Options(num_draws=400, seed=seed)
    with np.errstate(all="ignore"):
        findings = analyse(read_runs(runs)[0], options)
    if findings.law is None:
        return None
    C = np.array([budgets[-1] * BEYOND])
    law_low, law_high = findings.interval(lambda laws: quantities(laws, C, law))
    of_law = quantities(findings.law_vector, C, law)[0], law_low, law_high
    row = predict_intervals(findings, C).iloc[0]
    value, low, high = (
        np.array([part[0], np.log(row[f"num_params{end}"]), row[f"loss{end}"]])
        for part, end in zip(of_law, ("", "_low", "_high"), strict=True)
    )
    form, dropped = findings.fits["headline"].form, int((findings.runs["excluded"] != "").sum())
    return Sweep((value, low, high), of_law, form, dropped)


def one_cell(name: str, noise: float, design: str, sweeps: int) -> dict[str, object]:
    law, first = LAWS[name]
    rows, sizes, decades = DESIGNS[design]
    budgets = first * np.logspace(0, decades, rows)
    truth = quantities(law.vector[None], budgets[-1:] * BEYOND, law)[0]
    first_seed = zlib.crc32(f"{name} {(rows, sizes)} {noise}".encode())
    seeds = range(first_seed, first_seed + sweeps)
    tried = [one_sweep(law, budgets, sizes, noise, seed) for seed in seeds]
    found = [sweep for sweep in tried if sweep is not None]
    value, low, high = (np.array([s.predicted[i] for s in found]) for i in range(3))
    error, holds = value - truth, ((low <= truth) & (truth <= high)).mean(axis=0)
    rmse, bias = np.sqrt((error**2).mean(axis=0)), np.median(error, axis=0)
    width = np.median(high - low, axis=0)
    value, low, high = (np.array([s.of_law[i] for s in found]) for i in range(3))
    law_rmse = np.sqrt(((value - truth) ** 2).mean(axis=0))
    law_width = np.median(high - low, axis=0)
    row: dict[str, object] = {
        "law": name,
        "design": design,
        "noise": noise,
        "rmse_a": rmse[0],
        "bias_a": bias[0],
        "p99_a": np.quantile(np.abs(error[:, 0]), 0.99),
        "width_a": width[0],
        "rmse_N": rmse[1],
        "rmse_L": rmse[2] / truth[2],
        "rmse_N/law": rmse[1] / law_rmse[1],
        "rmse_L/law": rmse[2] / law_rmse[2],
        "width_N/law": width[1] / law_width[1],
        "width_L/law": width[2] / law_width[2],
        "cover_a": 100 * holds[0],
        "cover_N": 100 * holds[1],
        "cover_L": 100 * holds[2],
        **{form: 100 * np.mean([s.form == form for s in found]) for form in ("tied", "bent")},
        "refused": 100 * (1 - len(found) / sweeps),
        "dropped": np.mean([s.dropped for s in found]),
    }
    return row


def main(sweeps: int = 400, out: str = "", *only: str) -> None:
    laws = [name for name in LAWS if name in only] or list(LAWS)
    designs = [design for design in DESIGNS if design in only] or list(DESIGNS)
    noises = [noise for noise in NOISES if str(noise) in only] or list(NOISES)
    rows = []
    for name, design, noise in product(laws, designs, noises):
        rows.append(one_cell(name, noise, design, sweeps))
        print(pd.DataFrame(rows[-1:]).round(4).to_string(header=len(rows) == 1), flush=True)
        if out:
            pd.DataFrame(rows).to_csv(out, index=False)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400, *sys.argv[2:])
