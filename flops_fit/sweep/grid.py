"""`SweepPlan`: the grid of a sweep as data, and what may be asked of it before anything trains."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from flops_fit.records import TRIAL_COLUMNS, Size, Trial, to_frame
from flops_fit.sweep.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flops_fit.laws.model.parametric_law import ParametricLaw
    from flops_fit.sweep.estimate import Estimate
    from flops_fit.sweep.precision import Precision
    from flops_fit.sweep.rows import Rows
    from flops_fit.sweep.task import Task

NOISE = 0.005


@dataclass(frozen=True)
class Skipped:
    """A grid point that was passed over, and why."""

    compute_budget: float
    size: Size
    reason: str


@dataclass(frozen=True)
class Origin:
    """What a plan was made from: needed to measure, and to plan more."""

    task: Task
    rows: Rows


@dataclass(frozen=True, repr=False)
class SweepPlan:
    """What a sweep will train.

    Attributes:
        trials: The grid points, budget by budget, from the smallest size up.
        skipped: Points passed over, each with its reason.
        data_unit: What D counts: "tokens" or "examples".
        tokens_per_example: Units of D in one example.
        available: Units of D in the training data; None where it cannot be known.
        flops_convention: How FLOPs were counted.
        recipe: How each trial trains.
        model_name: Dotted name of the model class.
        size_param: Name of the size parameter.
        setting: Hash of what all trials share: model, data, loss, recipe and FLOPs convention.
            Runs of one setting may be fitted together.
        done: Ids of the trials that have ended; None where that was not looked up.
        origin: What it was made from; None where it came from elsewhere.
    """

    trials: tuple[Trial, ...]
    skipped: tuple[Skipped, ...]
    data_unit: str
    tokens_per_example: int
    available: int | None
    flops_convention: str
    recipe: Recipe
    model_name: str
    size_param: str
    setting: str
    done: frozenset[str] | None = None
    origin: Origin | None = field(default=None, compare=False)

    @property
    def total_flops(self) -> float:
        """FLOPs of all trials together."""
        return sum(trial.flops for trial in self.trials)

    @property
    def compute_budgets(self) -> list[float]:
        """The budgets planned, ascending."""
        return sorted({trial.compute_budget for trial in self.trials})

    @property
    def to_do(self) -> tuple[Trial, ...]:
        """The trials that have not ended, as far as that is known."""
        return tuple(t for t in self.trials if self.done is None or t.trial_id not in self.done)

    def to_frame(self) -> pd.DataFrame:
        """A row per trial: its fields, tokens per parameter and passes over the data.

        Where it was looked up, `done` says whether the trial has ended.
        """
        frame = to_frame(self.trials, TRIAL_COLUMNS)
        frame.insert(6, "tokens_per_param", frame["num_tokens"] / frame["num_params"])
        frame["epochs"] = frame["num_tokens"] / (self.available or math.nan)
        if self.done is not None:
            frame["done"] = frame["trial_id"].isin(self.done)
        return frame

    def estimate(
        self,
        *,
        calibrate: bool = True,
        flops_per_second: float | None = None,
        price_per_hour: float | None = None,
        devices: int | str = 1,
    ) -> Estimate:
        """Time, memory and money that what is not done yet will take.

        Trains some ten steps (of small models as many as fill a few tenths of a second) at the
        smallest, the middle and the largest size on the device at hand, by as many processes at
        once as will share this machine. Nothing is recorded.

        Args:
            calibrate: Measure; without it, `flops_per_second` must say how fast the device is.
            flops_per_second: Speed of one device, FLOP/s, in place of a measurement: for a machine
                that is not at hand. Memory is then not estimated.
            price_per_hour: Of one device, in any currency.
            devices: Trials at work at a time, as `workers=` of `find_optimal`: a number, or "auto"
                for one per GPU or core.

        Raises:
            ArgumentError: Listing every argument that cannot work.
            SweepError: No process that measures came to an end.
            Exception: What the model or the loss raises.
        """
        from flops_fit.sweep.estimate import estimate_plan

        return estimate_plan(
            self,
            calibrated=calibrate,
            flops_per_second=flops_per_second,
            price_per_hour=price_per_hour,
            devices=devices,
        )

    def precision(
        self, *, noise: float = NOISE, law: ParametricLaw | None = None, seed: int = 0
    ) -> Precision:
        """How wide the 95 % interval of N_opt will be, and which addition would narrow it most.

        At the largest budget and at 10 and 100 times it, by simulation: losses are drawn from an
        assumed law at the planned N and D (all data new) and go through the whole analysis.

        Args:
            noise: Standard deviation of ln L from run to run; .003 to .01 is common.
            law: The law to assume, as `Result.law` of a pilot sweep; by default Chinchilla's, moved
                to where the plan expects its optimum (D = 20 N).
            seed: Seed of the simulation.

        Raises:
            ArgumentError: An argument cannot work, or the grid cannot tell five parameters apart.
            FitError: In none of the simulated sweeps does a law stand.
        """
        from flops_fit.sweep.precision import foresee_plan

        return foresee_plan(self, noise=noise, law=law, seed=seed)

    def plot(self, ax: Axes | None = None) -> Any:
        """The grid in the (N, D) plane, with a line for each budget.

        Args:
            ax: Axes to draw on; a new figure if None.

        Returns:
            The Matplotlib figure.
        """
        from flops_fit.report.plans import plot_plan

        return plot_plan(self, ax=ax).figure

    def __repr__(self) -> str:
        from flops_fit.report import plan_words

        return "\n".join(plan_words.of_plan(self))

    def _repr_html_(self) -> str:
        from flops_fit.report import plan_words

        return plan_words.plan_html(self)
