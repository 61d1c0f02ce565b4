"""Are comparisons of two sweeps right where the truth is known?

Two laws are planted, between which the compute multiplier is known at every budget. For each, a
sweep over two decades of C is simulated, with noise of .3 or 1 % of the loss; in paired sweeps nine
tenths of its variance are shared. `flops_fit.compare` sees the fitted sweeps. The first sweep of a
seed is fitted once and compared with the second of every kind. Prints, at .3, 1 and 10 times the
largest budget, for each pair of laws

* the true multiplier and the median of those found,
* how often its 95 % interval contains the truth, and the median of ln (high / low),
* the same for the difference of the loss at equal compute, whose errors are beside it: their root
  mean square over the interval's, which is 1 where it holds 95 % of them,
* how often the textbook's interval holds it, with the same errors: the laws linear in their
  parameters about the truth, and Student's t, which holds 95 % of pairs. Where it holds fewer, the
  seeds are bad luck; what is to be judged is the difference,
* how often a difference is claimed, and how often wrongly (the laws are equal, or the worse one is
  called better),
* how often comparing one run of each at one size (the middle one of the smallest budget) names the
  law that is better at this budget, beside how often the comparison's sign does:

    python benchmarks/comparison.py [seeds] [first seed] [law, kind, design, noise, pairing ...]

About a second for each comparison on one core.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

import flops_fit
from flops_fit.laws.comparison.contrast import Contrast
from flops_fit.laws.findings import Findings
from flops_fit.laws.inference.intervals import LEVEL, NORMAL
from flops_fit.laws.model.frontier import loss_at
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.runs.simulate import simulate_isoflop

LARGEST = 1e19
AT = LARGEST * np.array([0.3, 1.0, 10.0])
DRAWS = 100
NONE = 1e-6  # a difference of the loss so small is none
LAW = ParametricLaw(1.69, 406.4, 410.7, 0.34, 0.28)
# Bends as METHOD.md found public tables to bend: the exponents of the loss are those of LAW.
BENT = ParametricLaw(1.69, 406.4 ** (1 / 0.45), 410.7 ** (1 / 0.45), 0.34 / 0.45, 0.28 / 0.45)
BENT = replace(BENT, gamma=0.45)
LAWS = {"exact": LAW, "bent": BENT}
KINDS = ("equal", "1.1x", "1.5x", "crossing")
DESIGNS = {"5x7": (5, 7), "4x5": (4, 5)}  # budgets and sizes
NOISES = {".003": 0.003, ".01": 0.01}
PAIRING = {"alone": 0.0, "paired": 0.9}  # the share of the variance that is common


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


def simulated(law: ParametricLaw, design: str, errors: np.ndarray) -> pd.DataFrame:
    """The runs of a sweep with given errors of ln L."""
    budgets, sizes = DESIGNS[design]
    table = simulate_isoflop(law, np.geomspace(LARGEST / 100, LARGEST, budgets), num_sizes=sizes)
    return table.assign(loss=table["loss"] * np.exp(errors))


def compared(
    law: ParametricLaw, kinds: Sequence[str], design: str, noise: float, shared: float, seed: int
) -> Iterator[dict[str, object]]:
    """The comparisons of one seed: a row for each kind and budget."""
    rng = np.random.default_rng(seed)
    common, *own = rng.standard_normal((3, int(np.prod(DESIGNS[design]))))
    errors = [noise * (np.sqrt(shared) * common + np.sqrt(1 - shared) * each) for each in own]
    paired = shared > 0
    table = simulated(law, design, errors[0])
    first = fitted(table)
    for kind in kinds:
        other = second(law, kind)
        other_table = simulated(other, design, errors[1])
        middle = DESIGNS[design][1] // 2
        at_one_size = np.sign(other_table["loss"].iloc[middle] - table["loss"].iloc[middle])
        sweeps = [(law, table, errors[0]), (other, other_table, errors[1])]
        found = Contrast.of(first, fitted(other_table)).at(AT)
        for C, row in zip(AT, found.to_dict("records"), strict=True):
            textbook = textbook_holds(sweeps, C, paired=paired)
            found_right = judged(C, row, (law, other), at_one_size)
            yield {"kind": kind, **found_right, "textbook": textbook}


def fitted(table: pd.DataFrame) -> Findings:
    """The laws of a sweep."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return flops_fit.fit(table, num_draws=DRAWS).findings


def judged(
    C: float,
    row: Mapping[Hashable, float],
    laws: tuple[ParametricLaw, ParametricLaw],
    at_one_size: float,
) -> dict[str, object]:
    """What a comparison found at one budget beside the truth."""
    factor = true_multiplier(*laws, C)
    truth = float(laws[1].l_opt(C) - laws[0].l_opt(C))
    low, high = row["loss_difference_low"], row["loss_difference_high"]
    told = not low <= 0 <= high
    right = np.sign(row["loss_difference"]) == np.sign(truth)
    return {
        "C": C,
        "true": factor,
        "found": row["multiplier"],
        "holds": row["multiplier_low"] <= factor <= row["multiplier_high"],
        "width": np.log(row["multiplier_high"] / max(row["multiplier_low"], 1e-300)),
        "holds_loss": low <= truth <= high,
        "width_loss": high - low,
        "error": (row["loss_difference"] - truth) ** 2,
        "allowed": ((high - low) / 2 / NORMAL) ** 2,
        "claimed": told,
        "wrong": told and (abs(truth) < NONE or not right),
        "one_size": at_one_size == np.sign(truth),
        "sign": right,
    }


def textbook_holds(
    sweeps: Sequence[tuple[ParametricLaw, pd.DataFrame, np.ndarray]], C: float, *, paired: bool
) -> bool:
    """Whether the interval of linear laws holds the difference of the loss at a budget.

    Args:
        sweeps: Of both, the law, the runs and their errors of ln L.
        C: The budget.
        paired: Whether the differences of the errors are looked at, or each sweep's own.
    """
    (one, first, e), (other, second, f) = sweeps
    if paired:
        error, half = textbook_error(one, first, C, f - e)
        return abs(error) <= half
    parts = [textbook_error(one, first, C, e), textbook_error(other, second, C, f)]
    levels = [one.l_opt(C), other.l_opt(C)]
    errors, halves = np.array(parts).T * levels
    return bool(abs(errors[1] - errors[0]) <= np.hypot(*halves))


def textbook_error(
    law: ParametricLaw, runs: pd.DataFrame, C: float, errors: np.ndarray
) -> tuple[float, float]:
    """The error of ln L at the optimum of a budget, and the half-width of its interval."""
    x, y = (np.log(runs[name].to_numpy()) for name in ("num_params", "num_tokens"))
    x, y = np.append(x, np.log(law.n_opt(C))), np.append(y, np.log(law.d_opt(C)))
    free = np.eye(len(law.vector))[: 5 if law.gamma == 1 else 6] * 1e-6
    high, low = (np.log(loss_at(law.vector + step, x, y)) for step in (free, -free))
    slopes = (high - low).T / 2e-6
    Q, R = np.linalg.qr(slopes[:-1])
    weights = Q @ np.linalg.solve(R.T, slopes[-1])
    dof = len(errors) - len(free)
    rest = errors - Q @ (Q.T @ errors)
    quantile = float(stats.t.ppf(0.5 + LEVEL / 2, dof))
    half = quantile * np.sqrt(rest @ rest / dof * (weights @ weights))
    return float(weights @ errors), float(half)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each budget: shares and medians."""
    medians = ["true", "found", "width", "width_loss"]
    groups = rows.drop(columns="kind").astype(float).groupby("C")
    lines = groups.mean()
    lines[medians] = groups[medians].median()
    lines["error"] = np.sqrt(lines["error"] / lines.pop("allowed"))
    return lines


def main() -> None:
    """Run all pairs and print a line for each."""
    numbers = [int(word) for word in sys.argv[1:3]]
    words = sys.argv[3:]
    count, start = [*numbers, *(60, 0)[len(numbers) :]]
    options = (LAWS, DESIGNS, NOISES, PAIRING)
    chosen = [[word for word in option if word in words] or list(option) for option in options]
    kinds = [kind for kind in KINDS if kind in words] or list(KINDS)
    for law, design, noise, pairing in product(*chosen):
        found = (
            row
            for seed in range(start, start + count)
            for row in compared(LAWS[law], kinds, design, NOISES[noise], PAIRING[pairing], seed)
        )
        for kind, rows in pd.DataFrame(found).groupby("kind", sort=False):
            print(f"\n{law} law, {design}, noise {noise}, {pairing}, {kind}, {count} pairs")
            print(summary(rows).to_string(float_format="{:.3g}".format), flush=True)


if __name__ == "__main__":
    main()
