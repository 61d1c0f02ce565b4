"""`FitData`: the runs that are fitted, as counted and as the law sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.check import Check, counted
from flops_fit.laws.fitting.cost import measure_cost
from flops_fit.laws.fitting.parametric import (
    FEW_STARTS,
    MANY_STARTS,
    Form,
    ParametricFit,
    fit_parametric,
)
from flops_fit.laws.inference.repetition_constants import measure_repetition, unique_tokens
from flops_fit.laws.model.arrays import Array, Space
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.repetition_law import RepetitionLaw, effective_tokens
from flops_fit.laws.options import Options
from flops_fit.laws.runs.points import Points

# Fewest runs for a parametric law with five parameters and a back-test.
LEAST_RUNS = 8
# Largest ratio of two losses, and largest loss, in one fit.
WIDEST_LOSS = 1e4
LARGEST_LOSS = 1e100
# Least range of ln N, ln D and ln (D / N).
LEAST_RANGE = 0.05


@dataclass(frozen=True)
class FitData:
    """The runs that are fitted, and how. n is their number.

    Attributes:
        points: The runs as the law sees them: effective tokens if data was repeated, effective
            parameters if excess parameters fade.
        counted: The same runs as counted, with their unique tokens.
        C: Budgets in FLOPs, shape (n,).
        sizes: A label for each size, shape (n,).
        cost: FLOPs per token.
        space: Residuals of ln L ("log") or of L ("linear").
        repetition: The data-constrained law behind `points`; None if tokens count as they are.
        unique_recorded: Whether the table records unique tokens, not epochs alone.
    """

    points: Points
    counted: Points
    C: Array
    sizes: np.ndarray
    cost: FlopsPerToken
    space: Space
    repetition: RepetitionLaw | None = None
    unique_recorded: bool = False

    def fit(
        self,
        form: Form,
        delta: float | None,
        space: Space | None = None,
        most_starts: int = MANY_STARTS,
        starts: Array | None = None,
    ) -> ParametricFit:
        """Fit the parametric law to these runs; arguments as for `fit_parametric`."""
        return fit_parametric(
            self.points,
            form=form,
            space=space or self.space,
            delta=delta,
            cost=self.cost,
            starts=starts,
            most_starts=most_starts,
        )

    def without(self, out: np.ndarray) -> FitData:
        """The data without the runs in a mask of shape (n,)."""
        return replace(
            self,
            points=self.points.at(~out),
            counted=self.counted.at(~out),
            C=self.C[~out],
            sizes=self.sizes[~out],
        )

    @property
    def joint(self) -> bool:
        """Whether R_D* and R_N* were both fitted, jointly with the law."""
        return self.repetition is not None and self.repetition.params_error is not None

    def with_repetition(self, delta: float | None, *, both: bool, form: Form = "five") -> FitData:
        """The data with effective tokens and parameters, if runs saw their data more than once.

        Args:
            delta: Huber's threshold; None for least squares.
            both: Whether R_N* may be fitted, and not R_D* alone.
            form: The form of the law with which they are fitted.
        """
        counted = self.counted
        if counted.unique is None:
            return self
        # The published R_D* gives a first law, at which the search for the constants starts.
        D = effective_tokens(counted.D, counted.unique)
        plain = replace(self, points=replace(counted, D=D))
        start = plain.fit(form, delta, None, FEW_STARTS).law
        law = None
        if self.space == "log":
            bent = form == "bent"
            law = measure_repetition(counted, start, delta, both=both, bent=bent)
        if law is None and self.unique_recorded:
            law = RepetitionLaw(start)
        return self._in_effective_units(law)

    def _in_effective_units(self, law: RepetitionLaw | None) -> FitData:
        """The data with D' and N' of a law; as counted if there is none."""
        counted = self.counted
        if law is None:
            return replace(self, points=counted, repetition=None)
        N, U = counted.N, counted.unique_tokens
        if law.params_error is not None:
            N = np.exp(law.effective(np.log(N), np.log(counted.D), np.log(U))[0])
        points = replace(counted, N=N, D=effective_tokens(counted.D, U, law.r_data))
        return replace(self, points=points, repetition=law)


def read_fit_data(runs: pd.DataFrame, options: Options) -> FitData:
    """The runs of a table that are not excluded.

    Args:
        runs: A clean table, as `table.read_runs` returns.
        options: How to fit.

    Raises:
        FitError: Every run is excluded.
    """
    good = runs[runs["excluded"] == ""]
    if good.empty:
        counts = runs["excluded"].value_counts().items()
        reasons = "; ".join(f"{n} {reason}" for reason, n in counts)
        raise FitError(f"all {len(runs)} runs are left out of the fit: {reasons}")
    counted = replace(Points.from_runs(good), unique=unique_tokens(good))
    positive = bool((counted.loss > 0).all())
    space: Space = "log" if positive and options.method != "linear" else "linear"
    return FitData(
        points=counted,
        counted=counted,
        C=good["compute_budget"].to_numpy(float),
        sizes=_size_labels(good),
        cost=measure_cost(counted.N, counted.D, good["flops"].to_numpy(float)),
        space=space,
        unique_recorded="unique_tokens" in good,
    )


def refuse_parametric(data: FitData) -> Check | None:
    """The reason why no parametric law can be fitted to these runs; None if one can."""
    n = len(data.points)
    if n < LEAST_RUNS:
        return Check(
            "too-few-runs",
            "refuse",
            f"{counted(n, 'finished run')}: the parametric law needs {LEAST_RUNS}.",
            "Add budgets or sizes.",
        )
    loss = data.points.loss
    size = np.abs(loss)
    similar = size.max() < WIDEST_LOSS * size[size > 0].min(initial=np.inf)
    if not similar or size.max() > LARGEST_LOSS:
        return Check(
            "odd-losses",
            "refuse",
            f"losses from {loss.min():.3g} to {loss.max():.3g}: no law fits them all.",
            "Look for diverged runs, and for losses in different units.",
        )
    x, y = np.log(data.points.N), np.log(data.points.D)
    if min(np.ptp(x), np.ptp(y), np.ptp(y - x)) < LEAST_RANGE:
        return Check(
            "one-direction",
            "refuse",
            "all runs have one N, one D or one D / N: the law's terms cannot be separated.",
            "Train several sizes at each budget.",
        )
    return None


def _size_labels(good: pd.DataFrame) -> np.ndarray:
    """One label per size, shape (n,): the recorded size, or N to one part in a thousand."""
    if good["size"].notna().all():
        sizes = good["size"].astype(str)
    else:
        sizes = np.round(np.log(good["num_params"].to_numpy(float)), 3)
    return np.unique(sizes, return_inverse=True)[1]
