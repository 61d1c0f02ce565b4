"""The fit of `StepTime` to measured steps, with relative errors.

For a given power it is linear in overhead and rate; the power lies on a grid (`shape_grid`).
Measurements far from the others, such as a first run that compiled, or one that shared its device,
are left out.
"""

from __future__ import annotations

import numpy as np

from flops_fit.laws.fitting.shape_grid import Bound, fit_shapes
from flops_fit.laws.model.arrays import MAD_TO_STD, Array
from flops_fit.laws.timing.step_time import StepTime

# The least and the largest power: of a device whose speed is proportional to the square root of the
# work, and of one at constant speed.
POWERS = (0.5, 1.0)
DRAWS = 200
# A measurement so many standard deviations from the fit is left out, if it is this factor off.
FAR, FACTOR = 4.0, 1.2
LEAST = 3
LEAST_DRAWS = 50
_ROUNDS = 3


def fit_step_time(work: Array, seconds: Array) -> StepTime | None:
    """Fit the time of a step.

    Args:
        work: FLOPs of each step measured, shape (n,).
        seconds: Its time, shape (n,).

    Returns:
        None if there is no measurement.
    """
    good = np.isfinite(work) & np.isfinite(seconds) & (work > 0) & (seconds > 0)
    work, seconds = work[good], seconds[good]
    if not len(work):
        return None
    reference = float(np.exp(np.log(work).mean()))
    kept = np.ones(len(work), bool)
    for _ in range(_ROUNDS):
        found = _fit(work[kept], seconds[kept], reference)
        errors = np.log(seconds / found.seconds(work))
        spread = MAD_TO_STD * float(np.median(np.abs(errors[kept])))
        near = np.abs(errors - np.median(errors[kept])) <= max(FAR * spread, np.log(FACTOR))
        if (near == kept).all() or near.sum() < max(LEAST, len(work) // 2):
            break
        kept = near
    return found


def _fit(work: Array, seconds: Array, reference: float) -> StepTime:
    """The fit to all of some measurements."""
    n, ends = len(work), (float(work.min()), float(work.max()))
    if n < LEAST or ends[1] < (1 + 1e-6) * ends[0]:
        return _proportional(work, seconds, reference)
    relative = work / reference

    def design(shapes: Array) -> Array:
        rate = relative ** shapes[:, :1] / seconds
        return np.stack([np.broadcast_to(1 / seconds, rate.shape), rate], axis=-1)

    bounds = (Bound((1.0, 0.0)), Bound((0.0, 1.0)))
    fitted = fit_shapes(design, [POWERS], np.ones(n), max(n - 3, 1), bounds)
    power, linear = fitted.draw(DRAWS)
    if len(linear) < LEAST_DRAWS:
        return _proportional(work, seconds, reference)
    rate = np.maximum(linear[:, 1], 1e-300)
    draws = np.column_stack([np.maximum(linear[:, 0], 0.0), np.log(rate), power[:, 0]])
    overhead, log_rate, middle = (float(value) for value in np.median(draws, axis=0))
    return StepTime(overhead, log_rate, middle, reference, *ends, fitted.scatter, draws, n)


def _proportional(work: Array, seconds: Array, reference: float) -> StepTime:
    """One size, or too few measurements: time in proportion to work."""
    logs = np.log(seconds * reference / work)
    log_rate, scatter = float(np.median(logs)), float(logs.std()) if len(logs) > 1 else 0.0
    draws = np.array([[0.0, log_rate, 1.0]])
    ends = float(work.min()), float(work.max())
    return StepTime(0.0, log_rate, 1.0, reference, *ends, scatter, draws, len(work))
