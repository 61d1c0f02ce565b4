"""`RecipeLaw`: the learning rate and batch size that train N parameters on D tokens best.

With x and y the logarithms of learning rate and batch size over their best values::

    ln L(N, D, rate, batch) = ln L(N, D) + c_r x^2 + c_b y^2 + 2 rho sqrt(c_r c_b) x y
    rate*  = k (N / N0)^p (D / D0)^q
    batch* = m (D / D0)^r

The form of both laws is that of Step Law (Li et al. 2025, section 3); the bowl around their best
values is a parabola in the logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.display.number_text import count, ratio, whole, with_interval
from flops_fit.laws.model.arrays import Array

# The elements of `RecipeLaw.vector`, in order. rho is kept as its inverse hyperbolic tangent.
RECIPE_PARAMETERS = (
    "log_rate", "rate_params", "rate_tokens", "log_batch", "batch_tokens",
    "log_rate_bowl", "log_batch_bowl", "atanh_rho",
)  # fmt: skip
ENOUGH_STEPS = 1000  # that a trial has, where its batch is to be found and can be small enough
# Smaller batches leave more steps. They are used as far as they cost no more of ln L than this,
SMALL_COST = 0.005
FEW_STEPS = 200  # and further where fewer steps than these would be left.
TOO_FEW_STEPS = 190  # are warned of: sizes are not continuous, so rows end near `FEW_STEPS`
_NORMAL = 1.959964
_LOG_RATE, _RATE_N, _RATE_D, _LOG_BATCH, _BATCH_D, _RATE_BOWL, _BATCH_BOWL, _RHO = range(8)
_LOGS = [_LOG_RATE, _LOG_BATCH, _RATE_BOWL, _BATCH_BOWL]
# As `RecipeLaw.intervals` names them.
_NAMES = ("k", "p", "q", "m", "r", "c_r", "c_b", "rho")
_PLACES = {
    "learning_rate": (_LOG_RATE, _RATE_N, _RATE_D, _RATE_BOWL),
    "batch_size": (_LOG_BATCH, _BATCH_D, _BATCH_BOWL),
}


def largest_batch(
    num_tokens: ArrayLike, tokens_per_example: float, steps: int = ENOUGH_STEPS
) -> Array:
    """The most examples a step that leave so many steps; 1 where none do.

    Args:
        num_tokens: D.
        tokens_per_example: Units of D in an example.
        steps: How many.
    """
    most = np.asarray(num_tokens, float) / tokens_per_example // steps
    return np.maximum(most, 1.0)


def log_losses(losses: Array) -> Array:
    """Losses on the scale of ln L; NaN where they are not finite, or zero among positive ones.

    A loss that may be negative, such as a log density, is taken as it is, over its mean size.
    """
    losses = np.where(np.isfinite(losses), losses, np.nan)
    with np.errstate(all="ignore"):
        if (losses < 0).any():
            return np.asarray(losses / np.nanmean(np.abs(losses)))
        return np.log(np.where(losses > 0, losses, np.nan))


@dataclass(frozen=True, repr=False)
class RecipeLaw:
    """Laws of the best learning rate and batch size, with errors.

    Attributes:
        vector: The parameters, in the order of `RECIPE_PARAMETERS`: ln k, p, q, ln m, r, ln c_r,
            ln c_b, atanh rho. Batches are in examples a step.
        covariance: Their covariance, rows of 8.
        centre: (N0, D0), about which the laws are written.
        tuned: Which were found: "learning_rate", "batch_size" or both. The law of the other is
            that of the trained runs, without error.
        noise: Standard deviation of ln L from seed to seed.
        tokens_per_example: Units of D in an example.
        largest: (N, D) of the largest trained model and the most tokens that the law was found on.
        largest_budget: Largest budget C that it was found on, in FLOPs.
        batch_rule: The published rule (`recipe_rules`) that all batches follow; empty if none.
    """

    vector: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    centre: tuple[float, float]
    tuned: tuple[str, ...]
    noise: float
    tokens_per_example: float
    largest: tuple[float, float]
    largest_budget: float
    batch_rule: str = ""

    def __repr__(self) -> str:
        return f"RecipeLaw: {self}"

    def __str__(self) -> str:
        """Rate and batch about which the laws are written, with intervals, and how they grow."""
        N, D = self.centre
        p, q, r = (f"{self.vector[place]:.2f}" for place in (_RATE_N, _RATE_D, _BATCH_D))
        parts = []
        if "learning_rate" in self.tuned:
            rate = float(self.learning_rate(N, D))
            low, high = map(float, self.learning_rate_interval(N, D))
            known = with_interval(rate, (low, high), ratio)
            parts.append(f"learning rate {known} x N^{p} D^{q}")
        if "batch_size" in self.tuned:
            batch = float(self.batch_size(N, D))
            low, high = map(float, self.batch_size_interval(N, D))
            parts.append(f"batch {with_interval(batch, (low, high), whole)} examples x D^{r}")
        return f"{', '.join(parts)} about N = {count(N)}, D = {count(D)}"

    def learning_rate(
        self, num_params: ArrayLike, num_tokens: ArrayLike, batch_size: ArrayLike | None = None
    ) -> Array:
        """Peak learning rate that suits N and D best.

        Args:
            num_params: N.
            num_tokens: D.
            batch_size: Examples a step, if it is not the best one: the rate that suits it.
        """
        rate = np.exp(self._gradients(num_params, num_tokens)[0] @ self._laws)
        if batch_size is None:
            return rate
        y = np.log(np.asarray(batch_size, float) / self.batch_size(num_params, num_tokens))
        return rate * np.exp(y * self.ridge)

    def is_known(self, name: str) -> bool:
        """Whether "learning_rate" or "batch_size" was found, or was the same for all runs.

        A batch by a rule is known too.
        """
        if name == "batch_size" and self.batch_rule:
            return True
        laws = {"learning_rate": self.vector[1:3], "batch_size": self.vector[4:5]}
        return name in self.tuned or not any(laws[name])

    @property
    def ridge(self) -> float:
        """How ln rate best follows ln batch, if the batch is not the best one: d x / d y."""
        c_r, c_b = np.exp(self.vector[_RATE_BOWL]), np.exp(self.vector[_BATCH_BOWL])
        return float(-np.tanh(self.vector[_RHO]) * np.sqrt(c_b / c_r))

    def batch_size(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Array:
        """Examples a step that suit N and D best; not rounded."""
        return np.exp(self._gradients(num_params, num_tokens)[1] @ self._laws)

    def most_batch(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Array:
        """The most examples a step that a trial is given; infinite if batches were not tuned.

        A trial has `ENOUGH_STEPS` steps, unless the smaller batch that this takes costs more than
        `SMALL_COST`; and `FEW_STEPS` in any case, if a batch of one leaves them.
        """
        best = self.batch_size(num_params, num_tokens)
        if "batch_size" not in self.tuned:
            return np.full_like(best, np.inf)
        # The learning rate follows the batch, which makes the bowl flatter.
        bowl = np.exp(self.vector[_BATCH_BOWL]) / np.cosh(self.vector[_RHO]) ** 2
        cheap = best * np.exp(-np.sqrt(SMALL_COST / bowl))
        enough, least = (
            largest_batch(num_tokens, self.tokens_per_example, steps)
            for steps in (ENOUGH_STEPS, FEW_STEPS)
        )
        return np.maximum(enough, np.minimum(np.ceil(cheap), least))

    def learning_rate_interval(
        self, num_params: ArrayLike, num_tokens: ArrayLike
    ) -> tuple[Array, Array]:
        """95 % interval of the best learning rate."""
        return self._interval(self._gradients(num_params, num_tokens)[0])

    def batch_size_interval(
        self, num_params: ArrayLike, num_tokens: ArrayLike
    ) -> tuple[Array, Array]:
        """95 % interval of the best batch size."""
        return self._interval(self._gradients(num_params, num_tokens)[1])

    def excess(
        self,
        num_params: ArrayLike,
        num_tokens: ArrayLike,
        learning_rate: ArrayLike,
        batch_size: ArrayLike,
    ) -> Array:
        """How far ln L lies above the least possible at a learning rate and a batch size."""
        x = np.log(np.asarray(learning_rate, float) / self.learning_rate(num_params, num_tokens))
        y = np.log(np.asarray(batch_size, float) / self.batch_size(num_params, num_tokens))
        return self._bowl(x, y)

    def expected_excess(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Array:
        """How far ln L lies above the least possible, on average, if this law is followed.

        The laws are known with an error, which grows away from the runs that they were found on.
        """
        of_rate, of_batch = self._gradients(num_params, num_tokens)
        covariance = np.array(self.covariance)[:5, :5]
        c_r, c_b = np.exp(self.vector[_RATE_BOWL]), np.exp(self.vector[_BATCH_BOWL])
        cross = np.tanh(self.vector[_RHO]) * np.sqrt(c_r * c_b)
        of_both = _product(of_rate, covariance, of_batch)
        return (
            c_r * _product(of_rate, covariance, of_rate)
            + c_b * _product(of_batch, covariance, of_batch)
            + 2 * cross * of_both
        )

    @property
    def intervals(self) -> pd.DataFrame:
        """Value, 95 % interval and standard error of the parameters of what was found.

        Rows k, p, q and c_r of the learning rate, m, r and c_b of the batch size, and rho, as
        the module writes them: k is the best rate and m the best batch at N0 and D0, `centre`.
        """
        errors = np.sqrt(np.diag(np.array(self.covariance)))
        ends = np.array([-_NORMAL, 0, _NORMAL])[:, None] * errors + np.array(self.vector)
        ends[:, _LOGS] = np.exp(ends[:, _LOGS])
        ends[:, _RHO] = np.tanh(ends[:, _RHO])
        low, value, high = ends
        errors[_LOGS] *= value[_LOGS]
        errors[_RHO] *= 1 - value[_RHO] ** 2
        table = {"value": value, "low": low, "high": high, "standard_error": errors}
        return pd.DataFrame(table, index=list(_NAMES)).loc[self._found]

    @property
    def _found(self) -> list[str]:
        """Names of the parameters that have an error."""
        if len(self.tuned) == 2:
            return list(_NAMES)
        return [_NAMES[place] for place in _PLACES[self.tuned[0]]]

    @property
    def _laws(self) -> Array:
        return np.array(self.vector[:5])

    def _bowl(self, x: Array, y: Array) -> Array:
        c_r, c_b = np.exp(self.vector[_RATE_BOWL]), np.exp(self.vector[_BATCH_BOWL])
        cross = 2 * np.tanh(self.vector[_RHO]) * np.sqrt(c_r * c_b)
        return c_r * x**2 + c_b * y**2 + cross * x * y

    def _gradients(self, num_params: ArrayLike, num_tokens: ArrayLike) -> tuple[Array, Array]:
        """Derivatives of ln rate* and ln batch* by the first five parameters, (k, 5) each."""
        n = np.log(np.asarray(num_params, float) / self.centre[0])
        d = np.log(np.asarray(num_tokens, float) / self.centre[1])
        n, d = np.broadcast_arrays(n, d)
        one, none = np.ones_like(n), np.zeros_like(n)
        return (
            np.stack([one, n, d, none, none], axis=-1),
            np.stack([none, none, none, one, d], axis=-1),
        )

    def _interval(self, gradient: Array) -> tuple[Array, Array]:
        middle = gradient @ self._laws
        variance = _product(gradient, np.array(self.covariance)[:5, :5], gradient)
        half = _NORMAL * np.sqrt(variance)
        return np.exp(middle - half), np.exp(middle + half)


def _product(left: Array, matrix: Array, right: Array) -> Array:
    """The bilinear form of each row, by a matrix."""
    return np.einsum("...i,ij,...j->...", left, matrix, right)
