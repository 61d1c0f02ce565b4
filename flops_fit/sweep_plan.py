"""`SweepPlan`: the planned grid, with forecasts of its cost and precision before it trains."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.report import plan_text
from flops_fit.sweep.forecast.course import CourseForecast, forecast_course
from flops_fit.sweep.forecast.estimate import Estimate, estimate_plan
from flops_fit.sweep.forecast.precision import Precision, expected_intervals_of_plan
from flops_fit.sweep.plan.grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class SweepPlan(Grid):
    """What a sweep will train: the fields of `Grid`, with forecasts, a plot and a table."""

    @classmethod
    def of(cls, grid: Grid) -> SweepPlan:
        """A plan with the fields of a grid."""
        return cls(**{field.name: getattr(grid, field.name) for field in fields(grid)})

    def estimate(
        self,
        *,
        calibrate: bool = True,
        flops_per_second: float | None = None,
        price_per_hour: float | None = None,
        devices: int | str = 1,
    ) -> Estimate:
        """Estimate time, memory and price of the trials that are not done yet.

        Trains about ten steps (of small models as many as fill a few tenths of a second) at the
        smallest, the middle and the largest size on this machine, in as many processes at once as
        will share it. Nothing is recorded. A plan with a goal lists its first trials alone; how
        long those take that follow is told as a range (`rounds_seconds`), from the sweeps that
        `course` simulates.

        Args:
            calibrate: Whether to measure; otherwise `flops_per_second` must be given.
            flops_per_second: Speed of one device, in FLOP/s, instead of a measurement, for a
                machine that is not at hand. Memory is then not estimated.
            price_per_hour: Price of one device, in any currency.
            devices: Number of trials that run side by side, as `workers=` of `find_optimal`: a
                number, or "auto" for one per GPU or core.

        Raises:
            ArgumentError: Listing every argument that cannot work.
            SweepError: None of the measuring processes finished.
            Exception: What the model or the loss raises.
        """
        return estimate_plan(
            self,
            calibrated=calibrate,
            flops_per_second=flops_per_second,
            price_per_hour=price_per_hour,
            devices=devices,
        )

    def precision(
        self, *, noise: float | None = None, law: ParametricLaw | None = None, seed: int = 0
    ) -> Precision:
        """Forecast the width of the 95 % interval of N_opt, and which addition narrows it most.

        The forecast is for the largest budget and for 10 and 100 times it, by simulation: losses
        are drawn from an assumed law at the planned N and D (without repeated data) and analysed
        as real runs are. Of a plan with a goal these are its first trials; for the whole sweep
        see `course`.

        Args:
            noise: Standard deviation of ln L from run to run; 0.003 to 0.01 is common for models of
                a million parameters. By default more for smaller ones, up to 0.03.
            law: The law to assume, such as `Result.law` of a pilot sweep; by default Chinchilla's,
                shifted so that its optimum is where the plan expects it (D = 20 N).
            seed: Seed of the simulation.

        Raises:
            ArgumentError: An argument cannot work, or the grid cannot identify five parameters.
            FitError: No simulated sweep yields a law.
        """
        return expected_intervals_of_plan(self, noise=noise, law=law, seed=seed)

    def course(
        self, *, noise: float | None = None, law: ParametricLaw | None = None, seed: int = 0
    ) -> CourseForecast:
        """Forecast what a sweep with a goal will take until its answer is precise enough.

        Whole sweeps are simulated under an assumed law, round by round as they will be trained.
        Takes up to a minute. Where the real law bends, the sweep takes more.

        Args:
            noise: As of `precision`.
            law: As of `precision`.
            seed: Seed of the simulation.

        Raises:
            ArgumentError: The plan was made without `target`, or an argument cannot work.
        """
        return forecast_course(self, noise=noise, law=law, seed=seed)

    def plot(self, ax: Axes | None = None) -> Any:
        """Plot the grid in the (N, D) plane, with a line for each budget.

        Args:
            ax: Axes to draw on; a new figure if None.

        Returns:
            The Matplotlib figure.
        """
        from flops_fit.report.plots.figure import for_the_reader
        from flops_fit.report.plots.sweeps.plan import plot_plan

        return for_the_reader(plot_plan(self, ax=ax).figure)

    def __repr__(self) -> str:
        return plan_text.as_text(self)

    def _repr_html_(self) -> str:
        return plan_text.plan_html(self)
