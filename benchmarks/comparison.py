"""Are comparisons of two sweeps right where the truth is known?

Two laws are planted, between which the compute multiplier is known at every budget. For each, a
sweep of 5 budgets over two decades and 7 sizes is simulated, with noise of .3 % of the loss; in
paired sweeps nine tenths of its variance are shared. `flops_fit.compare` sees the fitted sweeps.
Prints, at the largest budget and at ten times it, for each pair of laws

* the true multiplier and the median of those found,
* how often its 95 % interval contains the truth, and the median of ln (high / low),
* the same for the difference of the loss at equal compute,
* how often a difference is claimed, and how often wrongly (the laws are equal, or the worse one is
  called better),
* how often comparing one run of each at one size (the middle one of the smallest budget) names the
  law that is better at this budget, beside how often the comparison's sign does:

    python benchmarks/comparison.py [sweeps per pair] [first seed]
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

import flops_fit
from flops_fit.laws.comparison.contrast import Contrast
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.runs.simulate import simulate_isoflop

BUDGETS = np.geomspace(1e17, 1e19, 5)
AT = np.array([1e19, 1e20])
NOISE, SHARED, DRAWS = 0.003, 0.9, 200
LAW = ParametricLaw(1.69, 406.4, 410.7, 0.34, 0.28)
# Bends as METHOD.md found public tables to bend: the exponents of the loss are those of LAW.
BENT = ParametricLaw(1.69, 406.4 ** (1 / 0.45), 410.7 ** (1 / 0.45), 0.34 / 0.45, 0.28 / 0.45)
BENT = replace(BENT, gamma=0.45)
KINDS = ("equal", "1.1x", "1.5x", "crossing")


def second(law: ParametricLaw, kind: str) -> ParametricLaw:
    """The law that is compared with `law`."""
    if kind == "crossing":
        # A steeper law of N, worse before 3e18 FLOPs and better beyond.
        steeper, low, high = replace(law, alpha=1.06 * law.alpha), 0.1, 10.0
        for _ in range(60):
            factor = (low * high) ** 0.5
            is_worse = replace(steeper, A=law.A * factor).l_opt(3e18) > law.l_opt(3e18)
            low, high = (low, factor) if is_worse else (factor, high)
        return replace(steeper, A=law.A * low)
    worth = (1.0 if kind == "equal" else float(kind.rstrip("x"))) ** 0.5
    return replace(law, A=law.A * worth**-law.alpha, B=law.B * worth**-law.beta)


def true_multiplier(law: ParametricLaw, other: ParametricLaw, C: float) -> float:
    """The compute of `law` over that with which `other` reaches the same loss."""
    grid = np.geomspace(C / 1e3, 1e3 * C, 4001)
    return float(C / np.exp(np.interp(-law.l_opt(C), -other.l_opt(grid), np.log(grid))))


def simulated(
    laws: tuple[ParametricLaw, ParametricLaw], shared: float, seed: int
) -> Iterator[pd.DataFrame]:
    """The runs of both sweeps; a share of the variance of their noise is common to both."""
    rng = np.random.default_rng(seed)
    tables = [simulate_isoflop(law, BUDGETS, num_sizes=7) for law in laws]
    common = rng.standard_normal(len(tables[0]))
    for table in tables:
        own = rng.standard_normal(len(table))
        error = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        yield table.assign(loss=table["loss"] * np.exp(NOISE * error))


def compared(law: ParametricLaw, kind: str, shared: float, seed: int) -> list[dict[str, float]]:
    """One comparison: a row for each budget."""
    warnings.simplefilter("ignore")
    laws = law, second(law, kind)
    tables = list(simulated(laws, shared, seed))
    one, other = (flops_fit.fit(table, num_draws=DRAWS).findings for table in tables)
    found = Contrast.of(one, other).at(AT)
    at_one_size = np.sign(tables[1]["loss"].iloc[3] - tables[0]["loss"].iloc[3])
    rows = []
    for C, row in zip(AT, found.to_dict("records"), strict=True):
        factor = true_multiplier(*laws, C)
        truth = float(laws[1].l_opt(C) - laws[0].l_opt(C))
        told = not row["loss_difference_low"] <= 0 <= row["loss_difference_high"]
        right = np.sign(row["loss_difference"]) == np.sign(truth)
        rows.append(
            {
                "C": C,
                "true": factor,
                "found": row["multiplier"],
                "holds": row["multiplier_low"] <= factor <= row["multiplier_high"],
                "width": np.log(row["multiplier_high"] / max(row["multiplier_low"], 1e-300)),
                "holds_loss": row["loss_difference_low"] <= truth <= row["loss_difference_high"],
                "width_loss": row["loss_difference_high"] - row["loss_difference_low"],
                "claimed": told,
                "wrong": told and (kind == "equal" or not right),
                "one_size": at_one_size == np.sign(truth),
                "sign": right,
            }
        )
    return rows


def main() -> None:
    """Run all pairs and print a line for each."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    start = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    median = ("true", "found", "width", "width_loss")
    for name, law in (("exact", LAW), ("bent", BENT)):
        for shared in (0.0, SHARED):
            for kind in KINDS:
                with ProcessPoolExecutor(2) as pool:
                    results = pool.map(
                        partial(compared, law, kind, shared), range(start, start + count)
                    )
                    table = pd.DataFrame([row for rows in results for row in rows])
                means = table.groupby("C").mean(numeric_only=False).astype(float)
                means[list(median)] = table.groupby("C")[list(median)].median()
                print(f"\n{name} law, {'paired' if shared else 'alone'}, {kind}, {count} pairs")
                print(means.to_string(float_format="{:.3g}".format), flush=True)


if __name__ == "__main__":
    main()
