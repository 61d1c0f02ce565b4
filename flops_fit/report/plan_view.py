"""What `plan_text` and the plot of a plan read: the fields of a plan, an estimate, a precision.

The report lies below the sweep in the import layers, so it cannot import `SweepPlan`, `Estimate`
and `Precision`. These protocols name the fields that it reads of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import pandas as pd

from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.records import Skipped, Trial


class RecipeView(Protocol):
    """The fields of `Recipe` that decide learning rate and batch."""

    @property
    def learning_rate(self) -> Any:
        """A number, a function, or "auto"."""

    @property
    def batch_size(self) -> int | str:
        """Examples per step, or "auto"."""

    @property
    def batch_tokens(self) -> int | None:
        """Units of D per step, in place of `batch_size`."""

    def examples_per_step(self, compute_budget: float, unit: str, tokens_per_example: float) -> int:
        """The batch size at a budget."""


class PlanView(Protocol):
    """The fields of `SweepPlan` that are shown."""

    @property
    def trials(self) -> Sequence[Trial]:
        """The planned trials."""

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
    def flops_convention(self) -> str:
        """How FLOPs were counted."""

    @property
    def recipe(self) -> RecipeView:
        """How each trial trains."""

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


class PrecisionView(Protocol):
    """The fields of `Precision` that are shown."""

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
