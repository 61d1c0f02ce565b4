"""`Speed`: how long models take to train, by the finished runs of a sweep or of a table."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.frontier import log_flops_per_token, slope
from flops_fit.laws.timing.fit import fit_step_time
from flops_fit.laws.timing.step_time import StepTime


@dataclass(frozen=True)
class Speed:
    """Seconds of a token by the size of the model.

    Attributes:
        step: The time of a step.
        tokens_per_step: D of a step, as in the runs of the largest budget; 1 where the table has no
            steps, and a token counts as one.
        num_runs: Runs whose time is known.
        largest: N of the largest model timed.
        counts_steps: Whether steps are known.
    """

    step: StepTime
    tokens_per_step: float
    num_runs: int
    largest: float
    counts_steps: bool

    def log_seconds(self, x: Array, cost: FlopsPerToken) -> Array:
        """Ln of the seconds of a token for models of ln N = x, shape of x."""
        return np.asarray(np.log(self.step.seconds(self._work(x, cost)) / self.tokens_per_step))

    def log_slope(self, x: Array, cost: FlopsPerToken) -> Array:
        """The derivative of `log_seconds` with respect to x, shape of x."""
        return np.asarray(self.step.slope(self._work(x, cost)) * slope(x, cost))

    def log_error(self, x: Array, cost: FlopsPerToken) -> Array:
        """Standard error of `log_seconds`, shape of x."""
        return self.step.log_error(self._work(x, cost))

    def drawn(self, most: int) -> Speed:
        """Speeds that the measurements allow, for x of shape (S, k): a draw for each row."""
        return replace(self, step=self.step.drawn(most))

    def slowed(self, log_factor: float) -> Speed:
        """The same where everything takes exp(log_factor) times as long."""
        return replace(self, step=self.step.slowed(log_factor))

    def _work(self, x: Array, cost: FlopsPerToken) -> Array:
        return np.asarray(np.exp(log_flops_per_token(x, cost)) * self.tokens_per_step)


def speed_of(runs: pd.DataFrame) -> Speed | None:
    """The speed at which runs were trained; None where no run has its time.

    Args:
        runs: A clean table; runs that are excluded from the fit of the loss count too, if they have
            finished.
    """
    timed = runs[(runs["state"] == "complete") & (runs["wall_time_s"] > 0)]
    columns = ("flops", "num_tokens", "num_params", "wall_time_s", "steps")
    flops, tokens, params, seconds, steps = (timed[name].to_numpy(float) for name in columns)
    counts_steps = bool(len(timed)) and bool((steps > 0).all())
    per = steps if counts_steps else tokens
    step = fit_step_time(flops / per, seconds / per)
    if step is None:
        return None
    at_largest = timed["compute_budget"] == timed["compute_budget"].max()
    per_step = float(np.median((tokens / per)[at_largest.to_numpy()]))
    return Speed(step, per_step, len(timed), float(params.max()), counts_steps)
