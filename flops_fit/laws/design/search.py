"""Search: possible runs, the rows they belong to, and which of them to make next."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from flops_fit.laws.design.candidates import expected_optima
from flops_fit.laws.design.uncertainty import LOSS, SIZE, Uncertainty, drift_of
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.runs.budgets import group_budgets
from flops_fit.laws.timing.speed import Speed, speed_of

SIZES_PER_ROW = 4  # fewest sizes of a row
# Half-widths of a new row about its expected optimum, in ln N. Wide rows tell most of N_opt where a
# law holds; where it does not, runs far from the optimum say little of the loss there.
HALF_WIDTHS = tuple(math.log(10) * decades for decades in (0.2, 0.35, 0.5, 0.75, 1.0))
# A row of fewer sizes than four is completed within this distance of its expected optimum.
COMPLETED_WITHIN = math.log(10) * 0.75
# Every run counts as at least this share of what has been spent: a run has costs of its own, and
# very many very cheap ones tell less than a law says.
LEAST_COST = 0.02
NUM_TESTS = 4  # budgets at which the law is tested
# Share of runs in rows of several sizes from which a table counts as one of rows.
MOSTLY = 0.5
# A size beyond an edge lies further out than this share of the row's spacing.
BEYOND = 0.25
# Where the expected optimum lies outside the sizes that a row can have, it is taken to lie at one
# of these quantiles of them.
INSIDE = (0.2, 0.8)


@dataclass
class Search:
    """Which of n possible runs to make; `take` changes it.

    Attributes:
        table: Possible runs, and those under way: `compute_budget num_params num_tokens flops`.
        x: ln N of each.
        flops: FLOPs of each.
        spent: FLOPs of the runs made.
        row: Label of the row of each.
        optimum: ln N at the expected optimum of its budget.
        free: Which of them can be taken.
        sizes: ln N of the runs made, under way or taken, by row.
        edges: Rows in which the least loss was found at an edge: the side (-1 or 1), by row.
        in_rows: Whether the runs made, and those possible, lie in rows. Where they do not, each
            candidate can be taken by itself, and no row is completed.
        uncertainty: Given all these.
        drift: From the largest budget with a row to the variance of ln N_opt by drift.
        top: That budget now.
        aim: Place of the quantity whose interval is to become narrower.
        seconds: That each is expected to take; none where runs are chosen by their FLOPs.
        spent_seconds: The same of all runs made.
    """

    table: pd.DataFrame
    x: Array
    flops: Array
    spent: float
    row: np.ndarray
    optimum: Array
    free: np.ndarray
    sizes: dict[int, list[float]]
    edges: dict[int, int]
    uncertainty: Uncertainty
    drift: Callable[[float], float]
    top: float
    aim: int = SIZE
    in_rows: bool = True
    seconds: Array | None = None
    spent_seconds: float = 0.0

    @classmethod
    def of(
        cls,
        findings: Findings,
        target: float,
        candidates: pd.DataFrame,
        pending: pd.DataFrame | None,
        aim: str,
        per_hour: bool = False,
        in_rows: bool | None = None,
    ) -> Search:
        """The search before anything is chosen; arguments as for `next_runs.choose_runs`."""
        assert findings.law is not None
        done = findings.fitted_runs
        table = candidates if pending is None else pd.concat([candidates, pending])
        table = table[["compute_budget", "num_params", "num_tokens", "flops"]].astype(float)
        n, m = len(candidates), len(table)
        C = table["compute_budget"].to_numpy()
        labels = group_budgets(np.concatenate([C, done["compute_budget"].astype(float)]))
        x = np.log(table["num_params"].to_numpy())
        of_done = np.log(done["num_params"].to_numpy(float))
        sizes: dict[int, list[float]] = {}
        for label, size in zip(labels[n:], [*x[n:], *of_done], strict=True):
            sizes.setdefault(int(label), []).append(float(size))
        tests = np.unique(np.geomspace(C.min(), C.max(), NUM_TESTS)).tolist()
        if in_rows is None:
            in_rows = _in_rows(labels[m:], labels[m:], of_done, 3) and _in_rows(
                labels[:n], labels, np.concatenate([x, of_done]), SIZES_PER_ROW
            )
        losses = done["loss"].to_numpy(float)
        full = [k for k, row in sizes.items() if len(np.unique(row)) >= SIZES_PER_ROW]
        of_all = np.concatenate([C[n:], done["compute_budget"].astype(float)])
        counted = np.isin(labels[n:], full) | (not in_rows)
        top = float(of_all[counted].max(initial=of_all.min()))
        drift = partial(drift_of, findings, target)
        uncertainty = Uncertainty.of(findings, target, tests, table)
        uncertainty = uncertainty.after(range(n, m), drift(top))
        flops = table["flops"].to_numpy()
        speed = speed_of(done) if per_hour else None
        return cls(
            table=table,
            x=x,
            flops=flops,
            spent=float(done["flops"].sum()),
            row=labels[:m],
            optimum=_optima(findings, C, x, labels[:m]),
            free=np.arange(m) < n,
            sizes=sizes,
            edges=_edges(labels[m:], of_done, losses, sizes) if in_rows else {},
            uncertainty=uncertainty,
            drift=drift,
            top=top,
            aim=SIZE if aim == "num_params" else LOSS,
            in_rows=in_rows,
            seconds=None if speed is None else _seconds(speed, table, findings),
            spent_seconds=0.0 if speed is None else float(_seconds(speed, done, findings).sum()),
        )

    @property
    def timed(self) -> bool:
        """Whether runs are chosen by the time that they take."""
        return self.seconds is not None

    @property
    def cost(self) -> Array:
        """FLOPs, or seconds, that each run counts as."""
        if self.seconds is not None:
            return self.seconds + LEAST_COST * self.spent_seconds
        return self.flops + LEAST_COST * self.spent

    def take(self, runs: Sequence[int]) -> float:
        """Choose some runs.

        Returns:
            The share by which they narrow the interval aimed at.
        """
        before = self.uncertainty.log_variances()[self.aim]
        self.top = self._top_with(runs)
        self.uncertainty = self.uncertainty.after(runs, self.drift(self.top))
        self.free[list(runs)] = False
        for run in runs:
            self.sizes.setdefault(int(self.row[run]), []).append(float(self.x[run]))
        return float(1 - np.exp((self.uncertainty.log_variances()[self.aim] - before) / 2))

    def best(
        self, weights: Array, most_runs: float, most_flops: float, needed: float = math.inf
    ) -> list[int]:
        """The runs with the largest gain for their cost; empty if none fits.

        Either one size of a row that has been begun, or four of one that has not.

        Args:
            weights: What the logarithm of each variance counts, shape (q,).
            most_runs: Most runs.
            most_flops: FLOPs that they may spend.
            needed: By how much the logarithm of the variance aimed at is to fall. What runs would
                gain beyond does not count, so that a dear row is not begun for a last small step.
        """
        begun = self._begun()
        gains = self.uncertainty.gains()
        scores = weights @ gains * _share(gains[self.aim], needed) / self.cost
        fits = self.free & begun & (self.flops <= most_flops)
        scores = np.where(fits, scores, 0.0)
        found, best = [int(scores.argmax())], float(scores.max())
        rows = self._new_rows(begun) if most_runs >= SIZES_PER_ROW else ()
        for score, runs in self._scored(rows, weights, most_flops, needed):
            if score > best:
                found, best = runs, score
        return found if best > 0 else []

    def best_row(self, weights: Array, budgets: Collection[float], most_flops: float) -> list[int]:
        """The sizes that begin a row at one of these budgets; empty if none fits.

        Of all that fit, those with the largest gain for their cost.
        """
        C = self.table["compute_budget"].to_numpy()
        rows = (runs for runs in self._new_rows(self._begun()) if C[runs[0]] in budgets)
        scored = self._scored(rows, weights, most_flops)
        return max(scored, key=lambda of_row: of_row[0], default=(0.0, []))[1]

    def _scored(
        self, rows: Iterable[list[int]], weights: Array, most_flops: float, needed: float = math.inf
    ) -> Iterator[tuple[float, list[int]]]:
        """New rows that fit, each with its gain for its cost, which comes first."""
        for runs in rows:
            if self.flops[runs].sum() <= most_flops:
                gain = self.uncertainty.gain(runs, self.drift(self._top_with(runs)))
                score = float(weights @ gain * _share(gain[self.aim], needed))
                yield score / self.cost[runs].sum(), runs

    def most_telling(self, weights: Array, most_flops: float) -> int | None:
        """The run of a row that has been begun with the largest gain, whatever it costs."""
        fits = self.free & self._begun() & (self.flops <= most_flops)
        if not fits.any():
            return None
        return int(np.where(fits, weights @ self.uncertainty.gains(), -np.inf).argmax())

    def cheapest(self, weights: Array, most_flops: float) -> int | None:
        """The run with the largest gain of the lowest row begun that has free sizes."""
        fits = self.free & self._begun() & (self.flops <= most_flops)
        if not fits.any():
            return None
        lowest = self.row[np.where(fits, self.flops, np.inf).argmin()]
        gains = weights @ self.uncertainty.gains()
        return int(np.where(fits & (self.row == lowest), gains, -np.inf).argmax())

    def beyond_edges(self) -> Iterator[int]:
        """For each row with its least loss at an edge, a size beyond it."""
        for label, side in self.edges.items():
            sizes = np.sort(np.unique(self.sizes[label])) * side
            spacing = float(np.ptp(sizes)) / (len(sizes) - 1)
            row = np.flatnonzero((self.row == label) & self.free)
            out = side * self.x[row] - sizes.max()
            if (out > BEYOND * spacing).any():
                yield int(
                    row[np.where(out > BEYOND * spacing, np.abs(out - spacing), np.inf).argmin()]
                )

    def short_rows(self) -> Iterator[int]:
        """For each row of two or three sizes, runs until it has four, if all of them are taken.

        Take each before the next. It is the free size farthest from those that the row has, of
        those near its expected optimum if there are any.
        """
        for label, sizes in list(self.sizes.items()) if self.in_rows else ():
            missing = SIZES_PER_ROW - len(np.unique(sizes))
            for _ in range(missing if len(np.unique(sizes)) > 1 else 0):
                row = np.flatnonzero((self.row == label) & self.free)
                near = row[np.abs(self.x[row] - self.optimum[row]) <= COMPLETED_WITHIN]
                row = near if len(near) else row
                if not len(row):
                    break
                gaps = np.abs(self.x[row][:, None] - np.array(self.sizes[label])).min(axis=1)
                yield int(row[gaps.argmax()])

    def _top_with(self, runs: Sequence[int]) -> float:
        """The largest budget with a row once these runs are made."""
        label = int(self.row[runs[0]])
        sizes = np.unique([*self.sizes.get(label, ()), *self.x[list(runs)]])
        if self.in_rows and len(sizes) < SIZES_PER_ROW:
            return self.top
        return max(self.top, float(self.table["compute_budget"].iloc[runs[0]]))

    def _begun(self) -> np.ndarray:
        """Which candidates belong to rows that have been begun, shape (n,)."""
        if not self.in_rows:
            return np.ones_like(self.free)
        full = [k for k, sizes in self.sizes.items() if len(np.unique(sizes)) >= SIZES_PER_ROW]
        return np.isin(self.row, full)

    def _new_rows(self, begun: np.ndarray) -> Iterator[list[int]]:
        """Sets of sizes on both sides of the expected optimum of a row that has not been begun."""
        for label in np.unique(self.row[self.free & ~begun]):
            row = np.flatnonzero((self.row == label) & self.free)
            offsets = self.x[row] - self.optimum[row]
            known = self.sizes.get(int(label), [])
            for half in HALF_WIDTHS:
                wanted = np.linspace(-half, half, SIZES_PER_ROW)
                runs = [int(row[i]) for i in _nearest(offsets, wanted)]
                x = np.array([*self.x[runs], *known])
                around = x.min() < self.optimum[runs[0]] < x.max()
                if around and len(np.unique(x.round(6))) >= SIZES_PER_ROW:
                    yield runs


def _seconds(speed: Speed, runs: pd.DataFrame, findings: Findings) -> Array:
    """Seconds that each of some runs is expected to take, shape (n,)."""
    x = np.log(runs["num_params"].to_numpy(float))
    return runs["num_tokens"].to_numpy(float) * np.exp(speed.log_seconds(x, findings.cost))


def _share(gain: Array, needed: float) -> Array:
    """Share of a gain that is needed."""
    return np.minimum(1.0, needed / np.maximum(gain, 1e-300))


def _in_rows(of: np.ndarray, labels: np.ndarray, x: Array, least: int) -> bool:
    """Whether most runs of these labels lie in rows of at least so many sizes x."""
    full = [k for k in np.unique(of) if len(np.unique(x[labels == k].round(6))) >= least]
    return float(np.isin(of, full).mean()) >= MOSTLY


def _nearest(offsets: Array, wanted: Array) -> list[int]:
    """The places of the offsets nearest to those wanted, each once, as far as there are any."""
    found: list[int] = []
    for value in wanted:
        apart = np.abs(offsets - value)
        apart[found] = np.inf
        if np.isfinite(apart).any():
            found.append(int(apart.argmin()))
    return sorted(found, key=lambda i: offsets[i])


def _optima(findings: Findings, C: Array, x: Array, row: np.ndarray) -> Array:
    """Ln N at the expected optimum of each run's budget, inside the sizes that its row can have."""
    budgets, place = np.unique(C, return_inverse=True)
    optimum = expected_optima(findings, budgets)[place]
    for label in np.unique(row):
        own = row == label
        low, high = np.quantile(x[own], INSIDE)
        optimum[own] = np.clip(optimum[own], low, high)
    return optimum


def _edges(
    labels: np.ndarray, x: Array, loss: Array, sizes: dict[int, list[float]]
) -> dict[int, int]:
    """Rows of several sizes whose least loss lies at an edge beyond which nothing is under way."""
    found = {}
    for label in np.unique(labels):
        row = labels == label
        least = x[row][loss[row].argmin()]
        under_way = np.array(sizes[int(label)])
        if len(np.unique(x[row])) < 3:
            continue
        for side in (-1, 1):
            if (side * under_way <= side * least + 1e-9).all():
                found[int(label)] = side
    return found
