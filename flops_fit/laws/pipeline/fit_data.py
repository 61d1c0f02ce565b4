"""flops_fit.laws.pipeline.analyse.fit_data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.check import Check, counted
from flops_fit.laws.fitting.parametric import (
    FEW_STARTS,
    MANY_STARTS,
    Form,
    ParametricFit,
    fit_parametric,
)
from flops_fit.laws.inference.repetition_constants import (
    measure_repetition,
    unique_tokens,
)
from flops_fit.laws.model.arrays import Array, Space
from flops_fit.laws.model.cost import FlopsPerToken, measure_cost
from flops_fit.laws.model.repetition_law import RepetitionLaw, effective_tokens
from flops_fit.laws.options import Options

LEAST_RUNS = 8
WIDEST_LOSS, LARGEST_LOSS = 1e4, 1e100


@dataclass(frozen=True)
class Data:
    """Columns of the runs that are fitted, shape (n,) each, and how they are fitted.

    Attributes:
        N: Parameters as the law sees them: effective ones, where excess parameters fade.
        D: Tokens as the law sees them: effective ones, where data was repeated.
        loss: Loss.
        C: Budgets, FLOPs.
        sizes: A label for each size.
        cost: FLOPs per token.
        space: Residuals of ln L or of L.
        num_params: Parameters as counted.
        num_tokens: Tokens as read.
        unique: Unique tokens among them; None where none was read twice.
        repetition: The data-constrained law behind D; None where tokens count as read.
        given: Whether unique tokens were recorded, and not epochs alone.
    """

    N: Array
    D: Array
    loss: Array
    C: Array
    sizes: np.ndarray
    cost: FlopsPerToken
    space: Space
    num_params: Array
    num_tokens: Array
    unique: Array | None = None
    repetition: RepetitionLaw | None = None
    given: bool = False

    def fit(
        self,
        form: Form,
        delta: float | None,
        space: Space | None = None,
        most_starts: int = MANY_STARTS,
    ) -> ParametricFit:
        """The parametric law through these runs."""
        return fit_parametric(
            self.N,
            self.D,
            self.loss,
            form=form,
            space=space or self.space,
            delta=delta,
            cost=self.cost,
            most_starts=most_starts,
        )

    def without(self, out: np.ndarray) -> Data:
        """The same, less some runs."""
        names = ("N", "D", "loss", "C", "sizes", "num_params", "num_tokens")
        kept = {name: getattr(self, name)[~out] for name in names}
        return replace(self, unique=None if self.unique is None else self.unique[~out], **kept)

    @property
    def joint(self) -> bool:
        """Whether the law was fitted with both constants of repetition at once."""
        return self.repetition is not None and self.repetition.params_error is not None

    def repeated(self, delta: float | None, *, both: bool) -> Data:
        """The same in what counts, where runs saw their data more than once.

        Args:
            delta: Huber's threshold; None for least squares.
            both: Whether R_N* may be fitted, and not R_D* alone.
        """
        N, D, U = self.num_params, self.num_tokens, self.unique
        if U is None:
            return self
        plain = replace(self, N=N, D=effective_tokens(D, U))
        start = plain.fit("five", delta, None, FEW_STARTS).law
        law = None
        if self.space == "log":
            law = measure_repetition(N, D, self.loss, U, start, delta, both=both)
        if law is None and self.given:
            law = RepetitionLaw(start)
        if law is None:
            return replace(self, N=N, D=D, repetition=None)
        D = effective_tokens(D, U, law.r_data)
        if law.params_error is not None:
            N = law.effective_params(N, self.num_tokens, U)
        return replace(self, N=N, D=D, repetition=law)


def refuse_parametric(data: Data) -> Check | None:
    """Why no parametric law may be fitted to these runs; None where one may."""
    n = len(data.loss)
    if n < LEAST_RUNS:
        return Check(
            "too-few-runs",
            "refuse",
            f"{counted(n, 'finished run')}: the parametric law needs {LEAST_RUNS}.",
            "Add budgets or sizes.",
        )
    x, y, loss = np.log(data.N), np.log(data.D), np.abs(data.loss)
    spread = loss.max() < WIDEST_LOSS * loss[loss > 0].min(initial=np.inf)
    if not spread or loss.max() > LARGEST_LOSS:
        return Check(
            "odd-losses",
            "refuse",
            f"losses from {data.loss.min():.3g} to {data.loss.max():.3g}: no law fits them all.",
            "Look for diverged runs, and for losses in different units.",
        )
    if min(np.ptp(x), np.ptp(y)) < 0.05 or np.ptp(y - x) < 0.05:
        return Check(
            "one-direction",
            "refuse",
            "all runs have one N, one D or one D / N: the law's terms cannot be told apart.",
            "Train several sizes at each budget.",
        )
    return None


def _data(runs: pd.DataFrame, options: Options) -> Data:
    good = runs[runs["excluded"] == ""]
    if good.empty:
        reasons = "; ".join(f"{n} {why}" for why, n in runs["excluded"].value_counts().items())
        raise FitError(f"all {len(runs)} runs are left out of the fit: {reasons}")
    N, D, loss, C, flops = (
        good[name].to_numpy(float)
        for name in ("num_params", "num_tokens", "loss", "compute_budget", "flops")
    )
    positive = bool((loss > 0).all())
    space: Space = "log" if positive and options.method != "linear" else "linear"
    cost = measure_cost(N, D, flops)
    unique = unique_tokens(good)
    given = "unique_tokens" in good
    return Data(N, D, loss, C, _size_labels(good), cost, space, N, D, unique, given=given)


def _size_labels(good: pd.DataFrame) -> np.ndarray:
    """One label a size: the size where recorded, else N to one part in a thousand."""
    if good["size"].notna().all():
        return np.unique(good["size"].astype(str), return_inverse=True)[1]
    return np.unique(np.round(np.log(good["num_params"].to_numpy(float)), 3), return_inverse=True)[
        1
    ]
