"""`Grid`: the planned trials of a sweep, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from flops_fit.laws.design.goal import Goal
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.records import TRIAL_COLUMNS, Size, Skipped, Trial, to_frame
from flops_fit.sweep.task.hashing import short_name
from flops_fit.sweep.training.recipe import Recipe

if TYPE_CHECKING:
    from flops_fit.sweep.plan.isoflop_row import IsoflopRows
    from flops_fit.sweep.task.task import Task


@dataclass(frozen=True)
class Origin:
    """The task and the rows that a plan was made from; needed to time it and to extend it."""

    task: Task
    rows: IsoflopRows


@dataclass(frozen=True)
class PilotPlan:
    """What is trained to find the recipe, as far as it is known before.

    Attributes:
        budget: Budget of its trials, in FLOPs.
        sizes: The sizes that it trains.
        tuned: What it finds: "learning_rate", "batch_size" or both.
        most_flops: What the pilot costs at most.
        check_flops: What the check of the recipe after the sweep costs; 0 if none is affordable.
        expected: Trials like those of pilot and check, as many as they may be: what they will be
            in fact depends on their losses.
    """

    budget: float
    sizes: tuple[Size, ...]
    tuned: tuple[str, ...]
    most_flops: float
    check_flops: float
    expected: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class ChosenBudgets:
    """Budgets chosen for a time or an amount of money. Its fields are a stored format.

    Attributes:
        spending: What the sweep may take, as "2 h".
        key: Hash of what the budgets were chosen for: `spending`, model, data and recipe.
        budgets: The budgets in FLOPs, ascending.
        lines: What was expected of them, for the user.
    """

    spending: str
    key: str
    budgets: tuple[float, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """The planned trials of a sweep.

    Attributes:
        trials: The grid points, by budget, then ascending in size.
        skipped: Points left out, each with the reason.
        data_unit: What D counts: "tokens" or "examples".
        tokens_per_example: Units of D in one example; their mean where examples differ.
        available: Units of D in the training data; None if unknown.
        flops_convention: How FLOPs were counted.
        recipe: How each trial trains.
        model_name: Dotted name of the model class.
        size_param: Name of the size parameter.
        setting: Hash of what all trials share: model, data, loss, recipe and FLOPs convention.
            Runs of one setting may be fitted together.
        done: Ids of the trials that have ended; None if that was not looked up.
        rules: The published rules that "learning_rate" and "batch_size" follow; where a pilot finds
            them, those that it begins with.
        pilot: What is trained to find learning rate and batch; None if nothing is.
        chosen: Where the budgets were chosen for a time or money: what was chosen.
        found: Learning rate and batch, where a pilot has found them; the trials are by them.
        goal: How precisely the answer is to be known, with the budgets that may be trained; the
            trials are then those that the sweep begins with. None trains the trials alone.
        data_notes: What is done to the data, and what is held out of them, as lines.
        origin: What it was made from; None if not made by the planner.
    """

    trials: tuple[Trial, ...]
    skipped: tuple[Skipped, ...]
    data_unit: str
    tokens_per_example: float
    available: int | None
    flops_convention: str
    recipe: Recipe
    model_name: str
    size_param: str
    setting: str
    done: frozenset[str] | None = None
    rules: Mapping[str, str] = field(default_factory=dict)
    pilot: PilotPlan | None = None
    found: RecipeLaw | None = None
    data_notes: tuple[str, ...] = ()
    chosen: ChosenBudgets | None = None
    goal: Goal | None = None
    origin: Origin | None = field(default=None, compare=False)

    @property
    def short_name(self) -> str:
        """The model class's own name, which a sweep has that was given none."""
        return short_name(self.model_name)

    @property
    def with_expected(self) -> tuple[Trial, ...]:
        """The trials of the grid, and before them those expected of pilot and check."""
        expected = self.pilot.expected if self.pilot else ()
        return (*expected, *self.trials)

    @property
    def total_flops(self) -> float:
        """FLOPs of all trials together, with those expected of a pilot."""
        return sum(trial.flops for trial in self.with_expected)

    @property
    def compute_budgets(self) -> list[float]:
        """The budgets planned, ascending."""
        return sorted({trial.compute_budget for trial in self.trials})

    @property
    def to_do(self) -> tuple[Trial, ...]:
        """The trials not known to have ended, with those expected of a pilot."""
        done = self.done or ()
        return tuple(trial for trial in self.with_expected if trial.trial_id not in done)

    def to_frame(self) -> pd.DataFrame:
        """One row per trial: its fields, tokens per parameter and passes over the data.

        If it was looked up, the column `done` shows whether the trial has ended.
        """
        return self._frame(self.trials)

    def frame_with_expected(self) -> pd.DataFrame:
        """The same with the trials that a pilot is expected to train."""
        return self._frame(self.with_expected)

    def _frame(self, trials: tuple[Trial, ...]) -> pd.DataFrame:
        frame = to_frame(trials, TRIAL_COLUMNS)
        frame.insert(6, "tokens_per_param", frame["num_tokens"] / frame["num_params"])
        frame["epochs"] = frame["num_tokens"] / (self.available or math.nan)
        if self.done is not None:
            frame["done"] = frame["trial_id"].isin(self.done)
        return frame
