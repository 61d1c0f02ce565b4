"""Do comparisons of two real sweeps hold at budgets that were held out?

The sweeps are those of Porian et al. (2024; see `calibration.find_data`) on one data set and one
held-out set, with parameters counted alike. For every two of them, the largest one, two and three
budgets are left out of both fits, and `flops_fit.compare`'s difference of the loss is compared with
that of the losses at the vertices of the held-out rows. Prints, for comparisons with and without
pairs of runs, the share of 95 % intervals that contain it, their median half-width and error,
and how often a difference was claimed, and of the wrong sign:

    python benchmarks/held_out_comparison.py [results.csv]
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations

import numpy as np
import pandas as pd
from calibration import COLUMNS, LEAST_TRAIN, find_data, row_optimum, rows_by_budget

import flops_fit
from flops_fit.errors import FlopsFitError
from flops_fit.laws.comparison.contrast import Contrast

# Fewest budgets that are left to fit, and most that are held out.
LEAST_BUDGETS, MOST_HELD = 3, 3
ALIKE = ["dataset", "val", "param_count"]
OWN = ["file", "hparams", "warmup", "decay"]
Sweeps = tuple[pd.DataFrame, pd.DataFrame]


def jobs(points: pd.DataFrame) -> Iterator[tuple[str, Sweeps]]:
    """Every two sweeps that were measured alike."""
    for alike, group in points.groupby(ALIKE):
        sweeps = {" ".join(map(str, key)): table for key, table in group.groupby(OWN)}
        for one, other in combinations(sorted(sweeps), 2):
            name = f"{' '.join(map(str, alike))}: {one} | {other}"
            yield name, (sweeps[one], sweeps[other])


def judge(job: tuple[str, Sweeps]) -> list[dict[str, object]]:
    """One row for each cut and held-out budget of two sweeps."""
    warnings.simplefilter("ignore")
    name, tables = job
    budgets = [set(np.round(table["C"], -12)) for table in tables]
    common = sorted(budgets[0] & budgets[1])
    found: list[dict[str, object]] = []
    for held in range(1, MOST_HELD + 1):
        if len(common) - held < LEAST_BUDGETS:
            break
        cut = 0.999 * common[-held]
        trains = [table[table["C"] < cut] for table in tables]
        if min(map(len, trains)) < LEAST_TRAIN:
            break
        truths = [_optima(table[table["C"] >= cut]) for table in tables]
        try:
            one, other = (
                flops_fit.fit(train[list(COLUMNS)].rename(columns=COLUMNS)).findings
                for train in trains
            )
            contrast = Contrast.of(one, other)
            for C in sorted(truths[0].keys() & truths[1].keys()):
                at = contrast.difference(np.array([C]))
                truth = truths[1][C] - truths[0][C]
                half = float(at.high[0] - at.low[0]) / 2
                found.append(
                    {
                        "sweeps": name,
                        "held": held,
                        "paired": contrast.pairs is not None,
                        "factor": C / contrast.common[1],
                        "error": truth - float(at.value[0]),
                        "half": half,
                        "held_it": float(at.low[0]) <= truth <= float(at.high[0]),
                        "claimed": bool(at.told[0]),
                        "wrong": bool(at.told[0]) and np.sign(at.value[0]) != np.sign(truth),
                    }
                )
        except FlopsFitError:
            continue
    return found


def _optima(held: pd.DataFrame) -> dict[float, float]:
    """The loss at the vertex of each held-out row that shows one, by budget."""
    found = {}
    for row in rows_by_budget(held["C"].to_numpy()):
        optimum = row_optimum(held[row])
        if optimum is not None:
            found[float(f"{np.exp(optimum[0]):.3g}")] = float(np.exp(optimum[2]))
    return found


def main() -> None:
    """Run all pairs of sweeps and print a line for each kind."""
    points = pd.read_csv(find_data() / "porian" / "isoflop_points.csv")
    points = points.rename(columns={"flops": "C"})
    with ProcessPoolExecutor(2) as pool:
        judged = pd.DataFrame([row for rows in pool.map(judge, jobs(points)) for row in rows])
    if len(sys.argv) > 1:
        judged.to_csv(sys.argv[1], index=False)
    for paired, part in judged.groupby("paired"):
        for held, rows in part.groupby("held"):
            print(
                f"{'paired' if paired else 'alone'}, {held} held out: {len(rows)} rows, "
                f"held {rows['held_it'].mean():.1%}, half-width {rows['half'].median():.4f}, "
                f"error {rows['error'].abs().median():.4f}, claimed {rows['claimed'].mean():.0%}, "
                f"wrong {rows['wrong'].mean():.1%}"
            )


if __name__ == "__main__":
    main()
