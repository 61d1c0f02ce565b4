"""Pilots of a small perceptron, whose losses follow a planted law of rate and batch."""

import functools
import math

import numpy as np
import torch
from sweeps import LAW, Net, data
from torch.utils.data import TensorDataset

import flops_fit
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.records import Run
from flops_fit.sweep.growth.stages import Stages
from flops_fit.sweep.pilot.places import plan_pilot
from flops_fit.sweep.plan.planner import make_plan
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.task import Task

DECADE = (6e7, 1.3e8, 2.8e8, 6e8)
FOUND = flops_fit.Recipe(max_epochs=1e9)


@functools.cache
def rows_of(budgets=DECADE, recipe=FOUND, sizes=None):
    """The rows and the trials of a plan; made once for all tests."""
    task = Task(Net, "width", dataset=data(), loss_fn=torch.nn.functional.cross_entropy)
    planned = make_plan(task, PlanRequest(budgets, sizes, recipe))
    return planned.rows, planned.plan.trials


def stages_of(budgets=DECADE, extend=False, **options):
    rows, trials = rows_of(budgets, **options)
    return Stages(rows, trials, plan_pilot(rows, trials), extend)


def planted_recipe(rate=0.02, batch=4.0, **changes):
    """The law of rate and batch that the planted losses follow, about 1,000 parameters."""
    values = {
        "vector": (math.log(rate), -0.3, 0.0, math.log(batch), 0.6, -3.5, -3.5, -0.4),
        "covariance": tuple(map(tuple, np.zeros((8, 8)))),
        "centre": (1e3, 1e4),
        "tuned": ("learning_rate", "batch_size"),
        "noise": 0.003,
        "tokens_per_example": 1.0,
        "largest": (1e4, 1e6),
        "largest_budget": 1e9,
    }
    return RecipeLaw(**{**values, **changes})


def planted_loss(trial, recipe, noise=0.0):
    """The loss of a trial by the planted laws; its noise depends on its seed, as a run's does."""
    N, D = trial.num_params, trial.num_tokens
    excess = float(recipe.excess(N, D, trial.learning_rate, trial.batch_size))
    rng = np.random.default_rng(int(trial.trial_id, 16))
    return float(LAW.loss(N, D)) * math.exp(excess + noise * rng.standard_normal())


def run_of(trial, loss):
    """The finished run of a trial."""
    return Run(
        trial_id=trial.trial_id,
        run_id=f"run of {trial.trial_id}",
        compute_budget=trial.compute_budget,
        size=trial.size,
        num_params=trial.num_params,
        num_tokens=trial.num_tokens,
        flops=trial.flops,
        loss=loss,
        wall_time_s=1.0,
        seed=trial.seed,
        state="complete" if math.isfinite(loss) else "diverged",
        steps=trial.steps,
        learning_rate=trial.learning_rate,
        batch_size=trial.batch_size,
        role=trial.role,
    )


def trained(stages, recipe, noise=0.0, runs=(), most_rounds=60):
    """Train what a sweep asks for, round by round, until it asks for nothing more.

    Returns:
        The last stage, the runs, and the number of trials of each round.
    """
    runs = {run.trial_id: run for run in runs}
    rounds = []
    for _ in range(most_rounds):
        stage = stages.next(list(runs.values()), {k: run.loss for k, run in runs.items()})
        new = [trial for trial in stage.trials if trial.trial_id not in runs]
        if not new:
            return stage, list(runs.values()), rounds
        assert len({trial.trial_id for trial in new}) == len(new)
        rounds.append(len(new))
        runs |= {t.trial_id: run_of(t, planted_loss(t, recipe, noise)) for t in new}
    raise AssertionError(f"the sweep still asks for trials after {most_rounds} rounds")


def examples(count=400):
    """Examples with labels, as a dataset."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x[:, 0] > 0).long())
