"""Sweeps that many tests run: with a planted law in place of training, or for real."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import wait_until
from torch import nn
from torch.utils.data import TensorDataset

import flops_fit
from flops_fit import tracking
from flops_fit.errors import SweepError
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.records import Run
from flops_fit.sweep.execution.driver import run_sweep
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.plan.planner import Planned, make_plan
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.curve import Point
from flops_fit.sweep.training.train import Outcome
from flops_fit.sweep_setup import open_job
from flops_fit.tracking.address import StoreAddress

GAIN = 1.0  # of the model; tests change it to change the model's code
BUDGETS = [6e7, 2e8, 6e8, 2e9]
SMALL_BUDGETS = (6e7, 2e8)  # the first of them
SMALL_SIZES = (50, 100, 200, 400)
UNLIMITED = flops_fit.Recipe(max_epochs=1e9, pilot=False)
LAW = ParametricLaw(E=1.0, A=66.0, B=100.0, alpha=0.35, beta=0.30)


class Net(nn.Module):
    """A two-layer perceptron, sized by its width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return GAIN * self.layers(x)

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())


def data(count: int = 400) -> TensorDataset:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x[:, 0] > 0).long())


def sweep(folder: Path, budgets: list[float] = BUDGETS, **options: object) -> flops_fit.Result:
    settings = {
        "recipe": UNLIMITED,
        "name": "planted",
        "tracking_uri": f"sqlite:///{folder}/mlflow.db",
        **options,
    }
    return flops_fit.find_optimal(
        Net, "width", dataset=data(), loss_fn=nn.functional.cross_entropy,
        compute_budgets=budgets, **settings,  # type: ignore[arg-type]
    )  # fmt: skip


@functools.cache
def plan_of(
    budgets: tuple[float, ...] = SMALL_BUDGETS,
    sizes: tuple[int, ...] | None = SMALL_SIZES,
    recipe: flops_fit.Recipe = UNLIMITED,
) -> tuple[Task, Planned]:
    """The task and its plan; made once for all tests, for planning takes seconds."""
    task = Task(Net, "width", dataset=data(), loss_fn=nn.functional.cross_entropy)
    return task, make_plan(task, PlanRequest(budgets, sizes, recipe))


class SmallSweep:
    """A sweep in a folder's store, run without a fit: eight trials by default.

    Keywords are those of `plan_of`.
    """

    def __init__(self, folder: Path, **plan: Any) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.task, self.planned = plan_of(**plan)

    def open(self) -> Job:
        """The job, with a ledger in the store."""
        return open_job(self.task, self.planned, StoreAddress("planted", self.uri))

    def run(self, **options: Any) -> list[Run]:
        """Run what is missing, and return a run for each trial of this setting."""
        run_sweep(self.open(), source=self.planned.source, **options)
        return self.runs()

    @property
    def ledger(self) -> tracking.Ledger:
        return tracking.find_ledger("planted", self.uri)

    def runs(self) -> list[Run]:
        return tracking.fetch_runs(self.ledger, self.planned.plan.setting)


class Planted:
    """A trainer that draws losses from a law and counts what it trained."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.law = LAW
        self.counts_epochs = False  # else a run claims to have seen its data once
        self.recipe: RecipeLaw | None = None  # the best rate and batch; None: all are as good

    def __call__(self, task, source, trial, recipe, report, keeper=None, stop=None):
        self.trained.append(trial.trial_id)
        report(Point(trial.num_tokens, trial.flops, 3.0, 0.1, 1.0))
        mistuned = 1 + 0.01 * np.log2(trial.lr_multiplier) ** 2
        N, D = trial.num_params, trial.num_tokens
        loss = mistuned * float(self.law.loss(N, D))
        if self.recipe is not None:
            excess = self.recipe.excess(N, D, trial.learning_rate, trial.batch_size)
            loss *= float(np.exp(excess))
        epochs = trial.steps * trial.batch_size / source.num_examples if self.counts_epochs else 1.0
        return Outcome(loss, loss, trial.flops, 0.5, 100.0, epochs, "cpu")


def true_optimum(result: flops_fit.Result, budget: float) -> tuple[float, float]:
    """N_opt and L_opt by brute force on the measured cost curve (FLOPs per token against N)."""
    runs = result.runs.sort_values("num_params")
    N = np.geomspace(runs["num_params"].min(), runs["num_params"].max(), 200_001)
    per_token = (runs["flops"] / runs["num_tokens"]).to_numpy(float)
    cost = np.exp(
        np.interp(np.log(N), np.log(runs["num_params"].to_numpy(float)), np.log(per_token))
    )
    loss = LAW.loss(N, budget / cost)
    best = int(np.argmin(loss))
    return float(N[best]), float(loss[best])


def real_sweep(folder: Path, budgets: int = 3, **options: object) -> flops_fit.Result:
    """Real training of twelve tiny trials, or of four for each budget."""
    return sweep(
        folder, [1e5, 2e5, 4e5][:budgets], sizes=[2, 4, 8, 16],
        recipe=flops_fit.Recipe(batch_size=8, max_epochs=1e9, pilot=False), **options,
    )  # fmt: skip


def assert_same(result: flops_fit.Result, whole: flops_fit.Result, store: Path) -> None:
    """The same trials, losses and IsoFLOP curves; none was run to its end twice."""
    runs, expected = (r.runs.set_index("trial_id") for r in (result, whole))
    assert sorted(runs.index) == sorted(expected.index)
    np.testing.assert_allclose(runs["loss"], expected.loc[runs.index, "loss"], rtol=1e-5)
    curves = ["compute_budget", "num_runs", "c0", "c1", "c2"]  # of trials too few to carry a law
    np.testing.assert_allclose(
        result.optima[curves].astype(float), whole.optima[curves].astype(float), rtol=1e-3
    )
    ledger = tracking.find_ledger("planted", f"sqlite:///{store}/mlflow.db")
    done = [r for r in tracking.trial_runs(ledger) if r.data.tags[tracking.STATE] == "complete"]
    assert len(done) == len(expected)


SCRIPT = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background
sys.path.insert(0, {tests!r})
from pathlib import Path
import sweeps
sweeps.real_sweep(Path({folder!r}), workers={workers})
"""


def wait_for_runs(folder: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until some trials have finished, so that the kill comes in mid-sweep."""
    uri = f"sqlite:///{folder}/mlflow.db"

    def num_complete() -> int:
        try:
            runs = tracking.fetch_runs(tracking.find_ledger("planted", uri))
        except SweepError:  # the sweep has not begun
            return 0
        return sum(run.state == "complete" for run in runs)

    def is_reached() -> bool:
        if num_complete() >= count:
            return True
        if process.poll() is not None:
            pytest.fail(f"the sweep ended before it could be killed: exit {process.poll()}")
        return False

    wait_until(is_reached, process)
