"""Which metrics of a table are to be forecast: their names, columns and bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flops_fit.validate import is_number, raise_problems

# Least and largest value; None for none.
Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class MetricColumn:
    """A metric to forecast.

    Attributes:
        name: As the user names it.
        column: The column that holds it.
        bounds: Its least and largest value; None where they follow from its values.
    """

    name: str
    column: str
    bounds: Bounds | None = None


def read_metrics(metrics: Any, reserved: Sequence[str]) -> dict[str, Bounds | None]:
    """The metrics that were asked for, with their bounds.

    Args:
        metrics: Names, or a mapping from names to (low, high); None for no metrics.
        reserved: Names that columns of tables of predictions have.

    Raises:
        ArgumentError: Listing every fault.
    """
    if metrics is None:
        return {}
    if isinstance(metrics, str):
        metrics = [metrics]
    given = dict(metrics) if isinstance(metrics, Mapping) else dict.fromkeys(metrics)
    problems = []
    for name, bounds in given.items():
        if not isinstance(name, str) or not name:
            problems.append(f"metrics: expected names of columns, got {name!r:.80}")
        elif name in reserved:
            problems.append(f"metrics: {name!r} is a column of the laws: give the metric another")
        if bounds is not None and not _are_bounds(bounds):
            problems.append(
                f"metrics: expected the bounds (low, high) of {name!r}, None for none, "
                f"got {bounds!r:.80}"
            )
    raise_problems(problems)
    return {name: None if b is None else (b[0], b[1]) for name, b in given.items()}


def _are_bounds(bounds: Any) -> bool:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        return False
    if not all(end is None or is_number(end) for end in bounds):
        return False
    return bounds[0] is None or bounds[1] is None or bounds[0] < bounds[1]
