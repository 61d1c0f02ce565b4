"""flops_fit.validate."""

from __future__ import annotations

from flops_fit.errors import ArgumentError


def raise_problems(problems: list[str], heading: str = "") -> None:
    """Raise one `ArgumentError` that lists every problem, if there is any."""
    if problems:
        raise ArgumentError(problems, heading)
