"""Grouping of runs by compute budget: FLOPs that differ a little belong to one IsoFLOP row."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# Budgets that differ by less than this share are one budget.
TOLERANCE = 0.1


def group_budgets(C: ArrayLike, tolerance: float = TOLERANCE) -> np.ndarray:
    """Group runs by budget: those within `tolerance` of their group's middle.

    Args:
        C: FLOPs of each run, shape (n,).
        tolerance: Half-width of a group, relative.

    Returns:
        The group of each run, 0 for the smallest budget, shape (n,).
    """
    t = np.log(np.asarray(C, float))
    order = np.argsort(t, kind="stable")
    reach = 2 * np.log1p(tolerance)
    labels = np.empty(len(t), int)
    group, first, last = -1, -np.inf, -np.inf
    for i in order:
        # A new group starts after a gap, or when this one has grown to its full width.
        if t[i] - first > reach or t[i] - last > reach / 2:
            group, first = group + 1, t[i]
        labels[i], last = group, t[i]
    return labels
