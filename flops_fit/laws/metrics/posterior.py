"""The fit of one form of a metric's law: the distribution of its parameters, given the runs.

It is truncated where the metric would leave its bounds, or fall where it should rise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flops_fit.laws.fitting.shape_grid import Bound, fit_shapes
from flops_fit.laws.metrics.forms import Form, Places
from flops_fit.laws.model.arrays import Array

DRAWS = 400
LEAST_DRAWS = 100


@dataclass(frozen=True)
class Limits:
    """What is known of a metric beforehand.

    Attributes:
        low: Its least value; -inf if it has none.
        high: Its largest value; inf if it has none.
        rising: Whether it rises as the loss falls.
    """

    low: float
    high: float
    rising: bool

    @property
    def best(self) -> float:
        """The bound that it tends to as the loss falls; infinite if there is none."""
        return self.high if self.rising else self.low

    @property
    def bounded(self) -> bool:
        """Whether it has both bounds."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


@dataclass(frozen=True)
class Posterior:
    """A fitted form.

    Attributes:
        form: The form.
        draws: Parameters, shape (S, 2 + num_linear): shape parameters, then b0 and so on.
        scatter: Standard deviation of the runs about it.
        dof: Degrees of freedom of `scatter`.
    """

    form: Form
    draws: Array
    scatter: float
    dof: int


def fit_form(form: Form, places: Places, values: Array, limits: Limits) -> Posterior | None:
    """Fit one form.

    Args:
        form: The form.
        places: Where the runs are, shape (n,).
        values: Their metric, shape (n,).
        limits: Bounds and direction of the metric.

    Returns:
        The fitted form; None if the runs are too few, or no draw keeps to the limits.
    """
    # An error falls to zero: the best value of a power is the metric's bound, if it has one.
    fixed = bool(form.shape == "power" and np.isfinite(limits.best))
    dof = len(values) - (form.num_linear - fixed) - 2
    if dof < 1:
        return None

    def design(shapes: Array) -> Array:
        return form.design(shapes, places)[:, :, int(fixed) :]

    y = values - limits.best if fixed else values
    fitted = fit_shapes(design, form.grid, y, dof, _bounds(form, limits, fixed=fixed))
    shapes, linear = fitted.draw(DRAWS)
    if len(linear) < LEAST_DRAWS:
        return None
    if fixed:
        linear = np.column_stack([np.full(len(linear), limits.best), linear])
    return Posterior(form, np.column_stack([shapes, linear]), fitted.scatter, dof)


def _bounds(form: Form, limits: Limits, *, fixed: bool) -> list[Bound]:
    """Bounds on the coefficients that are fitted: at either end of B, and in the direction."""
    # B of a sigmoid grows towards lower losses and more compute, B of a power falls.
    direction = 1.0 if (form.shape == "sigmoid") == limits.rising else -1.0
    rest = (0.0,) * (form.num_linear - 2)
    known = limits.best if fixed else 0.0
    ends = [(1.0,)] if fixed else [(1.0, 0.0), (1.0, 1.0)]
    bounds = [Bound(((direction,) if fixed else (0.0, direction)) + rest)]
    for end in ends:
        if np.isfinite(limits.low):
            bounds.append(Bound(end + rest, limits.low - known))
        if np.isfinite(limits.high):
            bounds.append(Bound(tuple(-weight for weight in end) + rest, known - limits.high))
    return bounds
