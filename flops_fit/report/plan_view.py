"""What `plan_text` and the plot of a plan read: the fields of a plan, an estimate, a precision.

The report lies below the sweep in the import layers, so it cannot import `SweepPlan`, `Estimate`
and `Precision`. These protocols name the fields that it reads of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import pandas as pd

from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.records import Size, Skipped, Trial


class PilotView(Protocol):
    """The fields of `PilotPlan`."""

    @property
    def budget(self) -> float:
        """Budget of its trials, in FLOPs."""

    @property
    def sizes(self) -> Sequence[Size]:
        """The sizes that it trains."""

    @property
    def tuned(self) -> Sequence[str]:
        """What it finds."""

    @property
    def most_flops(self) -> float:
        """What it costs at most."""

    @property
    def check_flops(self) -> float:
        """What the check after the sweep costs."""

    @property
    def expected(self) -> Sequence[Trial]:
        """Trials like those of pilot and check."""


class ChosenView(Protocol):
    """The fields of `ChosenBudgets` that are shown."""

    @property
    def spending(self) -> str:
        """What the sweep may take."""

    @property
    def lines(self) -> Sequence[str]:
        """What was expected of the budgets."""


class GoalView(Protocol):
    """The fields of `Goal` that are shown."""

    @property
    def lines(self) -> Sequence[str]:
        """The goal in words."""


class PlanView(Protocol):
    """The fields of `SweepPlan` that are shown."""

    @property
    def trials(self) -> Sequence[Trial]:
        """The planned trials."""

    @property
    def goal(self) -> GoalView | None:
        """How precisely the answer is to be known."""

    @property
    def to_do(self) -> Sequence[Trial]:
        """The trials that are not done."""

    @property
    def done(self) -> Collection[str] | None:
        """Ids of the trials that are done; None if unknown."""

    @property
    def skipped(self) -> Sequence[Skipped]:
        """Points that cannot be trained, with the reason."""

    @property
    def compute_budgets(self) -> Sequence[float]:
        """The budgets in FLOPs, ascending."""

    @property
    def total_flops(self) -> float:
        """FLOPs of all trials."""

    @property
    def data_unit(self) -> str:
        """What D counts."""

    @property
    def tokens_per_example(self) -> float:
        """Units of D per example."""

    @property
    def available(self) -> int | None:
        """Units of D in the training data; None if unknown."""

    @property
    def data_notes(self) -> Sequence[str]:
        """What is done to the data, and what is held out of them, as lines."""

    @property
    def flops_convention(self) -> str:
        """How FLOPs were counted."""

    @property
    def pilot(self) -> PilotView | None:
        """What is trained to find the recipe."""

    @property
    def chosen(self) -> ChosenView | None:
        """What the budgets were chosen for; None if they were given."""

    @property
    def found(self) -> RecipeLaw | None:
        """The recipe, where it has been found."""

    @property
    def rules(self) -> Mapping[str, str]:
        """The published rules that learning rate and batch size follow, or begin with."""

    @property
    def model_name(self) -> str:
        """Name of the model class."""

    @property
    def size_param(self) -> str:
        """Name of the size parameter."""

    def to_frame(self) -> pd.DataFrame:
        """One row per trial."""


class EstimateView(Protocol):
    """The fields of `Estimate` that are shown."""

    @property
    def table(self) -> pd.DataFrame:
        """One row per trial, with `seconds` and `memory_bytes`."""

    @property
    def seconds(self) -> float:
        """Time until the last trial ends."""

    @property
    def seconds_interval(self) -> tuple[float, float]:
        """Interval of `seconds`."""

    @property
    def rounds_seconds(self) -> tuple[float, float] | None:
        """Least and most time of the trials that follow, of a plan with a goal."""

    @property
    def device_seconds(self) -> float:
        """Time of all trials together."""

    @property
    def memory_bytes(self) -> float:
        """Peak memory of a trial."""

    @property
    def memory_kind(self) -> str:
        """How `memory_bytes` was found: "measured" or "estimated"."""

    @property
    def cost(self) -> float:
        """Money; NaN without a price."""

    @property
    def cost_interval(self) -> tuple[float, float]:
        """Interval of `cost`."""

    @property
    def price_per_hour(self) -> float | None:
        """Price of one device."""

    @property
    def devices(self) -> int:
        """Trials that run at a time."""

    @property
    def device(self) -> str:
        """The device that was timed."""

    @property
    def size_param(self) -> str:
        """Name of the size parameter."""

    @property
    def data_unit(self) -> str:
        """What D counts."""


class PrecisionView(Protocol):
    """The fields of `Precision` that are shown."""

    @property
    def is_of_first(self) -> bool:
        """Whether more trials follow those simulated."""

    @property
    def table(self) -> pd.DataFrame:
        """One row per budget."""

    @property
    def additions(self) -> pd.DataFrame:
        """Possible additions to the plan, the best first."""

    @property
    def law(self) -> ParametricLaw:
        """The assumed law."""

    @property
    def noise(self) -> float:
        """Assumed standard deviation of ln L."""

    @property
    def num_sweeps(self) -> int:
        """Number of simulated sweeps."""

    @property
    def size_param(self) -> str:
        """Name of the size parameter."""
