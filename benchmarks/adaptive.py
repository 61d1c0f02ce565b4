"""What does it cost to know an answer, if each run is chosen by what it does to the answer?

Two parts:

`simulate`: sweeps with a goal (`find_optimal(target=, until=)`) are simulated under laws that hold
exactly and a law that bends (gamma = 0.45), which is fitted as any other. The goal is the width
that a grid of five budgets by seven sizes over +-.5 decade (as in `coverage.py`) or +-.75 (the
default) has at the target, 10 and 100 times the largest budget.
Prints the share of the grid's FLOPs that reached it, in the median and for nine in ten, how many
sweeps did not reach it, the share of intervals after stopping that contain the truth, and the width
of the interval over the grid's once as many FLOPs are spent as the grid takes.

`replay`: every public IsoFLOP table (see `calibration.find_data`) is trained again, from its own
runs below its largest budget. At shares of its FLOPs, prints the median error of ln N_opt and
ln L_opt at the largest budget, whose row was held out, for runs chosen by `choose_runs` for N_opt
or for the loss, in random order, the smallest budgets first, and, in hindsight, those nearest to
the least loss of their row, with that share of every row; and the errors of the whole table.

    python benchmarks/adaptive.py simulate [sweeps] [chinchilla | small | bent ...]
    python benchmarks/adaptive.py replay [results.csv]
"""

from __future__ import annotations

import math
import sys
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
from calibration import (
    COLUMNS,
    LEAST_IN_ROW,
    LEAST_ROWS,
    find_data,
    read_tables,
    row_optimum,
    rows_by_budget,
)
from coverage import LAWS

from flops_fit.errors import FitError, FlopsFitError
from flops_fit.laws.design.course import Course, simulate_course
from flops_fit.laws.design.goal import Goal
from flops_fit.laws.design.next_runs import Limits, choose_runs
from flops_fit.laws.design.rounds import GROWTH, Reached
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.laws.runs.table import read_runs

NOISE = 0.003
GAMMA = 0.45
SIZES, BUDGETS = 7, 5  # of the grid
HALF_WIDTHS = (0.5, 0.75)  # of its rows, in decades: as in `coverage.py`, and the default grid
HALF_WIDTH = 0.75  # of the first rows of a sweep with a goal
DRAWS = 120
SHARES = (0.1, 0.2, 0.35, 0.4, 0.6)
LEAST_TABLE = 16  # runs below the row that is held out
FIRST_ROWS, APART = 3, 2.8  # rows that a replay begins with, and the least ratio of their budgets


def bent_law() -> tuple[ParametricLaw, float]:
    """A law with gamma = 0.45 whose optimum, loss and slopes are near Chinchilla's at 1e19."""
    law, first = LAWS["chinchilla"]
    N = float(law.n_opt(10 * first))
    D = 10 * first / 6 / N
    alpha, beta = 0.75 * law.alpha / GAMMA, 0.75 * law.beta / GAMMA
    inner = (float(law.loss(N, D)) - law.E) ** (1 / GAMMA) / (alpha + beta)
    A, B = inner * beta * N**alpha, inner * alpha * D**beta
    return ParametricLaw(law.E, A, B, alpha, beta, gamma=GAMMA), first


def fitted(runs: pd.DataFrame, seed: int = 0) -> Findings:
    with np.errstate(all="ignore"):
        return analyse(read_runs(runs)[0], Options(num_draws=DRAWS, seed=seed))


def sweep(law: ParametricLaw, goal: Goal, seed: int) -> Course:
    """A sweep with a goal, which begins around the true optima, as the grid is."""
    first = np.repeat(goal.first_budgets, 4)
    offsets = np.tile(np.linspace(-HALF_WIDTH, HALF_WIDTH, 4), len(goal.first_budgets))
    return simulate_course(law, goal, first, law.n_opt(first) * 10**offsets, noise=NOISE, seed=seed)


def grid_span(law: ParametricLaw, budgets: Array, target: float, half: float, seed: int) -> float:
    runs = simulate_isoflop(law, budgets, num_sizes=SIZES, half_width=half, noise=NOISE, seed=seed)
    return Reached.of(fitted(runs, seed), target, 0.0).span


def one_goal(job: tuple[ParametricLaw, Goal, int, float]) -> dict[str, float]:
    """A sweep with the goal, and one with a goal that takes more FLOPs than the grid."""
    warnings.simplefilter("ignore")
    law, goal, seed, span = job
    assert goal.max_flops is not None
    course = sweep(law, goal, seed)
    assert course.findings is not None
    row = predict_intervals(course.findings, np.array([goal.target])).iloc[0]
    N, loss = law.n_opt(goal.target), law.l_opt(goal.target)
    to_end = sweep(law, replace(goal, until=span**0.4), seed)
    return {
        "share": course.flops / goal.max_flops,
        "reached": float(course.is_precise),
        "runs": course.reached[-1].num_runs,
        "rounds": len(course.reached),
        "N": float(row["num_params_low"] <= N <= row["num_params_high"]),
        "loss": float(row["loss_low"] <= loss <= row["loss_high"]),
        "width": math.log(to_end.reached[-1].span) / math.log(span),
        "spent": to_end.flops / goal.max_flops,
    }


def simulate(num_sweeps: int, names: Sequence[str]) -> None:
    laws = {**LAWS, "bent": bent_law()}
    rows = []
    with ProcessPoolExecutor() as pool:
        for name in names:
            law, first = laws[name]
            budgets = first * np.logspace(0, 2, BUDGETS)
            for half, beyond in product(HALF_WIDTHS, (10.0, 100.0)):
                target = beyond * budgets[-1]
                seeds = range(zlib.crc32(name.encode()) % 10**6, 10**9)[:num_sweeps]
                spans = list(
                    pool.map(_grid, [(law, budgets, target, half, seed) for seed in seeds])
                )
                span = float(np.median(spans))
                goal = Goal(target, span, max_flops=SIZES * float(budgets.sum()))
                goal = goal.between([budgets[0], budgets[-1]])
                jobs = [(law, goal, seed + 10**6, span) for seed in seeds]
                found = pd.DataFrame(list(pool.map(one_goal, jobs)))
                done = found[found["reached"] > 0]
                rows.append(
                    {
                        "law": name,
                        "half-width": half,
                        "beyond": beyond,
                        "span": span,
                        "share": done["share"].median(),
                        "share, 90 %": done["share"].quantile(0.9),
                        "reached": 100 * found["reached"].mean(),
                        "runs": found["runs"].median(),
                        "rounds": found["rounds"].median(),
                        "covered N": 100 * done["N"].mean(),
                        "covered L": 100 * done["loss"].mean(),
                        "width at equal FLOPs": found["width"].median(),
                        "spent": found["spent"].median(),
                    }
                )
                print(pd.DataFrame(rows[-1:]).round(3).to_string(header=len(rows) == 1), flush=True)


def _grid(job: tuple[ParametricLaw, Array, float, float, int]) -> float:
    warnings.simplefilter("ignore")
    return grid_span(*job)


Held = tuple[float, float, float]  # ln C, ln N and ln loss at the optimum of the row held out


def tables() -> dict[str, tuple[pd.DataFrame, Held]]:
    """The runs below the largest row of each table, and the optimum of that row."""
    found = {}
    for name, table in read_tables(find_data()).items():
        C = table["C"].to_numpy()
        rows = [row for row in rows_by_budget(C) if row.sum() >= LEAST_IN_ROW]
        if "target" in table or len(rows) < LEAST_ROWS:
            continue
        optimum, rest = row_optimum(table[rows[-1]]), table[C < 0.999 * C[rows[-1]].min()]
        if optimum is not None and len(rest) >= LEAST_TABLE:
            runs = rest.rename(columns=COLUMNS)[list(COLUMNS.values())].reset_index(drop=True)
            found[name] = runs.assign(flops=runs["compute_budget"]), optimum
    return found


def first_runs(runs: pd.DataFrame) -> list[int]:
    """Four sizes of each of three low rows."""
    C, x = runs["compute_budget"].to_numpy(), np.log(runs["num_params"].to_numpy())
    found: list[int] = []
    last, rows = 0.0, 0
    for row in rows_by_budget(C):
        places = np.flatnonzero(row)
        if len(places) < 4 or C[row].mean() < APART * last or rows == FIRST_ROWS:
            continue
        last, rows = C[row].mean(), rows + 1
        wanted = np.quantile(x[places], [0.1, 0.37, 0.63, 0.9])
        found += dict.fromkeys(int(places[np.abs(x[places] - w).argmin()]) for w in wanted)
    return found


def nearest(runs: pd.DataFrame, share: float) -> list[int]:
    """This share of every row, three runs at least: those nearest to its least loss."""
    x, loss = np.log(runs["num_params"].to_numpy()), runs["loss"].to_numpy()
    found: list[int] = []
    for row in map(np.flatnonzero, rows_by_budget(runs["compute_budget"].to_numpy())):
        order = np.abs(x[row] - x[row][loss[row].argmin()]).argsort(kind="stable")
        found += [int(i) for i in row[order][: max(3, round(share * len(row)))]]
    return found


def chosen_order(runs: pd.DataFrame, target: float, aim: str) -> list[int]:
    """The runs of a table in the order in which they are chosen."""
    order = first_runs(runs)
    flops = runs["flops"].to_numpy()
    while flops[order].sum() < max(SHARES) * flops.sum():
        left = np.setdiff1d(np.arange(len(runs)), order)
        spent = float(flops[order].sum())
        try:
            findings = fitted(runs.iloc[order])
        except FitError:
            findings = None
        if findings is None or findings.misfit is None:
            order.append(int(left[flops[left].argmin()]))
            continue
        limits = Limits(least_flops=GROWTH * spent)
        choices = choose_runs(findings, target, runs.iloc[left], limits, aim=aim)
        if not choices:
            break
        order += [int(left[run]) for choice in choices for run in choice.runs]
    return order


def errors(runs: pd.DataFrame, held: Held) -> tuple[float, float, float]:
    """Errors of ln N_opt and ln L_opt, and half the width of ln N's interval; else infinite."""
    try:
        row = predict_intervals(fitted(runs), np.array([math.exp(held[0])])).iloc[0]
    except FlopsFitError:
        return math.inf, math.inf, math.inf
    half = math.log(row["num_params_high"] / row["num_params_low"]) / 2
    return (
        abs(math.log(row["num_params"]) - held[1]),
        abs(math.log(row["loss"]) - held[2]),
        half,
    )


def judge(job: tuple[str, pd.DataFrame, Held]) -> list[dict[str, object]]:
    warnings.simplefilter("ignore")
    name, runs, held = job
    flops = runs["flops"].to_numpy()
    orders = {
        "chosen": [chosen_order(runs, math.exp(held[0]), "num_params")],
        "for the loss": [chosen_order(runs, math.exp(held[0]), "loss")],
        "random": [list(np.random.default_rng(seed).permutation(len(runs))) for seed in range(3)],
        "smallest first": [list(np.argsort(runs["compute_budget"].to_numpy(), kind="stable"))],
    }
    subsets = [("nearest", share, nearest(runs, share)) for share in SHARES]
    for how, several in orders.items():
        for order in several:
            spent = np.cumsum(flops[order]) / flops.sum()
            counts = [int(np.searchsorted(spent, 1.0001 * share)) for share in SHARES]
            subsets += [(how, s, order[:n]) for s, n in zip(SHARES, counts, strict=True)]
    whole, found = errors(runs, held), []
    of_whole = dict(zip(("N of all", "L of all"), whole, strict=False))
    for how, share, subset in subsets:
        error = errors(runs.iloc[subset], held) if subset else (math.inf,) * 3
        values = dict(zip(("N", "L", "half"), error, strict=True))
        found.append({"table": name, "how": how, "share": share, **values, **of_whole})
    return found


def replay(out: str = "") -> None:
    jobs = [(name, *of_table) for name, of_table in tables().items()]
    with ProcessPoolExecutor() as pool:
        judged = pd.DataFrame([row for part in pool.map(judge, jobs) for row in part])
    if out:
        judged.to_csv(out, index=False)
    porian = judged["table"].str.startswith("porian")
    for group, part in (("all", judged), ("Porian", judged[porian]), ("others", judged[~porian])):
        whole = part.drop_duplicates("table")[["N of all", "L of all"]].median()
        print(f"\n{group}: {part['table'].nunique()} tables; error of the whole table: ", end="")
        print(f"ln N {whole['N of all']:.3f}, ln L {whole['L of all']:.4f}")
        medians = part.groupby(["how", "share"])[["N", "L", "half"]].median().unstack(0)
        print(medians.round(4).to_string())


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["simulate"]
    if what == "replay":
        replay(*rest)
    else:
        simulate(int(rest[0]) if rest else 400, rest[1:] or ("chinchilla", "small", "bent"))
