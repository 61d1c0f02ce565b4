"""Cells: runs averaged over their neighbours, so that kriging is fast however many there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flops_fit.laws.model.arrays import Array

MOST_CELLS = 128  # of neighbours, over which runs are averaged
LEAST_SPAN = 0.5  # of the runs, along u and along v


@dataclass(frozen=True)
class Cells:
    """Runs, averaged over neighbours, shape (c,) each.

    Attributes:
        x: ln N, centred.
        y: ln D, centred.
        residual: Loss less the law's: of ln L, or of L over its mean.
        weight: Number of runs, or less for runs far from a Huber fit.
    """

    x: Array
    y: Array
    residual: Array
    weight: Array


def neighbours(at: Array) -> np.ndarray:
    """The cell of each run, shape (n,): the widest cells are halved until there are enough.

    Args:
        at: u and v of each run, shape (n, 2).
    """
    distinct, place = np.unique(np.round(at, 9), axis=0, return_inverse=True)
    cells = [np.arange(len(distinct))]
    if len(distinct) <= MOST_CELLS:
        return np.asarray(place).ravel()
    scaled = distinct / np.maximum(np.ptp(distinct, axis=0), LEAST_SPAN)
    sizes = [np.ptp(scaled, axis=0)]
    while len(cells) < MOST_CELLS:
        widest = int(np.argmax([size.max() for size in sizes]))
        cell, axis = cells.pop(widest), int(sizes.pop(widest).argmax())
        order = cell[np.argsort(scaled[cell, axis], kind="stable")]
        halves = [order[: len(order) // 2], order[len(order) // 2 :]]
        cells += halves
        sizes += [np.ptp(scaled[half], axis=0) for half in halves]
    labels = np.empty(len(distinct), int)
    for label, cell in enumerate(cells):
        labels[cell] = label
    return labels[np.asarray(place).ravel()]


def averaged(x: Array, y: Array, r: Array, weight: Array, groups: np.ndarray) -> Cells:
    """The mean of ln N, ln D and residual over the runs of each cell, and their total weight."""
    total = np.bincount(groups, weight).astype(float)
    x, y, r = (np.bincount(groups, weight * column) / total for column in (x, y, r))
    return Cells(x, y, r, total)
