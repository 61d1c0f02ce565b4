"""Is the recipe that a pilot finds as good as a full grid of learning rates and batches?

For each model a sweep by default is run. Then a grid of four rates and three batches, a factor of
two apart and centred on what the sweep used, is trained at several sizes of one row. For each size
it prints how far the sweep's loss lies above the best of the grid, and what pilot and check cost.
The best of twelve cells is a lucky one: with seeds that differ by s, it lies about 1.6 s below the
mean of equal cells. So both cells, the sweep's and the best, are trained with other seeds, and how
far they are apart by these alone is printed with its standard error. N_opt of the row is by the
mean losses of these seeds too; its interval is by seeds drawn again.

    python benchmarks/recipe.py gpt mlp --row 0 --sizes 3 --folder results
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from recipe_models import CASES, Case

import flops_fit
from flops_fit.errors import DivergedError
from flops_fit.laws.fitting.isoflop import fit_isoflop
from flops_fit.prepare import stages, with_pilot
from flops_fit.records import Trial
from flops_fit.sweep.execution.driver import run_sweep
from flops_fit.sweep.plan.planner import Planned, make_plan
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.sweep.training.train import train
from flops_fit.sweep_setup import open_job
from flops_fit.tracking.address import StoreAddress
from flops_fit.tracking.queries import fetch_runs

RATES = (0.5, 1.0, 2.0, 4.0)
BATCHES = (0.5, 1.0, 2.0)
DRAWS = 400  # of seeds, for the interval of N_opt


class Bench:
    """A case with its plan; losses of trained cells are kept in a file."""

    def __init__(self, name: str, case: Case, seeds: int, folder: Path) -> None:
        training, held_out = case.data()
        self.task = Task(
            case.model_cls, case.size_param, case.kwargs, training, case.loss_fn, held_out
        )
        request = PlanRequest(case.budgets, recipe=Recipe(max_epochs=100))
        self.seeds = range(1, seeds + 1)  # those by which no cell was chosen
        self.planned: Planned = with_pilot(make_plan(self.task, request))
        self.address = StoreAddress(name, f"sqlite:///{folder}/{name}.db")
        self.file = folder / f"{name}.jsonl"
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.known = {cell["trial_id"]: cell["loss"] for cell in map(json.loads, lines)}

    def sweep(self) -> list[flops_fit.records.Run]:
        """The runs of a sweep by default."""
        job = open_job(self.task, self.planned, self.address)
        run_sweep(job, source=self.planned.source, stages=stages(self.planned))
        return fetch_runs(job.ledger, self.planned.plan.setting)

    def loss(self, trial: Trial) -> float:
        """The held-out loss of a trial."""
        if trial.trial_id not in self.known:
            recipe = self.planned.plan.recipe
            try:
                loss = train(self.task, self.planned.source, trial, recipe, lambda point: None).loss
            except DivergedError:
                loss = math.nan
            self.known[trial.trial_id] = loss
            with self.file.open("a") as file:
                file.write(json.dumps({"trial_id": trial.trial_id, "loss": loss}) + "\n")
        return self.known[trial.trial_id]

    def over_seeds(self, run: flops_fit.records.Run, rate: float, batch: float) -> np.ndarray:
        """Logarithms of the losses of a cell with each of the seeds."""
        return np.log([self.loss(self.cell(run, rate, batch, seed)) for seed in self.seeds])

    def cell(self, run: flops_fit.records.Run, rate: float, batch: float, seed: int = 0) -> Trial:
        """A trial like a run, with multiples of its rate and batch."""
        rows = self.planned.rows
        cost = rows.finder.nearest_cost(run.num_params)
        trial = rows.trial(
            run.compute_budget,
            cost,
            0,
            batch=max(1, round(run.batch_size * batch)),
            rate=run.learning_rate * rate,
            seed=seed,
        )
        return trial if seed else replace(trial, at_own_rate=run.trial_id)  # as the run began


def spread_over(items: list[flops_fit.records.Run], count: int) -> list[flops_fit.records.Run]:
    """So many of the items, the first and the last among them."""
    chosen = np.unique(np.round(np.linspace(0, len(items) - 1, count)).astype(int))
    return [items[index] for index in chosen]


def n_opt(runs: list[flops_fit.records.Run], log_losses: Iterable[float]) -> float:
    """N_opt of a row by its parabola; NaN where it has none."""
    N = np.array([run.num_params for run in runs], float)
    C = np.full(len(runs), runs[0].compute_budget)
    return float(fit_isoflop(C, N, np.exp(list(log_losses)))["num_params"].iloc[0])


def compare_optima(runs: list[flops_fit.records.Run], ours: np.ndarray, grid: np.ndarray) -> str:
    """N_opt of a row by the sweep's cells and by the best ones.

    Args:
        runs: The sweep's run of each size.
        ours: ln losses of the sweep's cells, shape (sizes, seeds).
        grid: Those of the best cells, shape (sizes, seeds).
    """
    by_sweep, by_grid = (n_opt(runs, cells.mean(axis=1)) for cells in (ours, grid))
    generator, sizes = np.random.default_rng(0), np.arange(len(runs))[:, None]
    ratios = []
    for _ in range(DRAWS):
        drawn = (
            cells[sizes, generator.integers(cells.shape[1], size=cells.shape)]
            for cells in (ours, grid)
        )
        one, other = (n_opt(runs, cells.mean(axis=1)) for cells in drawn)
        ratios.append(one / other)
    low, high = np.nanquantile(ratios, (0.025, 0.975))
    without = np.isnan(ratios).mean()
    return (
        f"  N_opt {by_sweep:.4g} by the sweep's cells, {by_grid:.4g} by the best: x "
        f"{by_sweep / by_grid:.2f} (95 %: {low:.2f} to {high:.2f}; no optimum in {without:.0%})"
    )


def judge(name: str, row: int, sizes: int, seeds: int, folder: Path) -> None:
    """Print the figures of one model."""
    bench = Bench(name, CASES[name], seeds, folder)
    runs = bench.sweep()
    plain = sum(trial.flops for trial in bench.planned.plan.trials)
    spent = {
        role: sum(run.flops for run in runs if run.role == role) / plain
        for role in ("pilot", "check", "sweep")
    }
    print(
        f"\n{name}: FLOPs over the plain sweep's: " + str({k: f"{v:.1%}" for k, v in spent.items()})
    )
    budget = sorted({run.compute_budget for run in runs if run.role == "sweep"})[row]
    of_row = [run for run in runs if run.role == "sweep" and run.compute_budget == budget]
    of_row.sort(key=lambda run: run.num_params)
    chosen = spread_over(of_row, sizes)
    ours, grid = [], []
    for run in chosen:
        cells = {
            (rate, batch): cell
            for rate in RATES
            for batch in BATCHES
            if (cell := bench.cell(run, rate, batch)).steps >= 10
        }
        losses = {key: bench.loss(cell) for key, cell in cells.items()}
        best = min(losses, key=lambda key: np.nan_to_num(losses[key], nan=math.inf))
        own = bench.over_seeds(run, 1, 1)
        others = bench.over_seeds(run, *best)
        ours.append(own)
        grid.append(others)
        apart = own.mean() - others.mean()
        error = math.sqrt((own.var(ddof=1) + others.var(ddof=1)) / seeds)
        print(
            f"  C={budget:.3g} size {run.size} (N {run.num_params:,.0f}): loss {run.loss:.4f} with "
            f"rate {run.learning_rate:.3g}, batch {run.batch_size:g}; best of {len(cells)} cells "
            f"{losses[best]:.4f} at {best[0]:g} x rate, {best[1]:g} x batch: "
            f"{math.log(run.loss / losses[best]):+.2%}; with other seeds {apart:+.2%} "
            f"+- {error:.2%}; seeds differ by {own.std(ddof=1):.2%}",
            flush=True,
        )
    if len(chosen) >= 4:
        print(compare_optima(chosen, np.array(ours), np.array(grid)))


def main() -> None:
    """Judge the models named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--row", type=int, default=0, help="index of the budget")
    parser.add_argument("--sizes", type=int, default=3, help="sizes of the row with a grid")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the two cells of a size")
    parser.add_argument("--folder", type=Path, default=Path("recipe_bench"))
    args = parser.parse_args()
    args.folder.mkdir(exist_ok=True, parents=True)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in args.cases:
        judge(name, args.row, args.sizes, args.seeds, args.folder.absolute())


if __name__ == "__main__":
    main()
