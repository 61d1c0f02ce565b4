"""The fit of `RecipeLaw` to cells: runs of one size and one budget over rates and batch sizes.

ln L of a cell is a level of its own for each size and budget, plus the bowl of `RecipeLaw`, which
may be a little steeper or flatter there, and lie a little beside the law. The most probable law is
found by iterated least squares (Gelman et al. 2013, *Bayesian Data Analysis*, sections 4.1 and
17.2): the exponents and the shape of the bowl have priors from published sweeps, and the errors
have the tails of Student's t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import linalg

from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.recipe_law import RecipeLaw, log_losses

# Places in the vector that is searched: as `RECIPE_PARAMETERS`, but with the exponents of the rate
# written as their mean s = (p + q) / 2, which holds along the frontier, and t = (p - q) / 2, which
# holds along a row.
LOG_RATE, ALONG_C, ALONG_ROW, LOG_BATCH, BATCH_D, RATE_BOWL, BATCH_BOWL, RHO = range(8)
FOUND = {
    "learning_rate": [LOG_RATE, ALONG_C, ALONG_ROW, RATE_BOWL],
    "batch_size": [LOG_BATCH, BATCH_D, BATCH_BOWL],
}

# Priors, mean and standard deviation. s: DeepSeek -.125, Porian -.167, Step Law -.203; t: 0, -.167,
# -.51; r: .65, .67, .57. The bowls: .005 for 200 M parameters, up to .2 for a few thousand.
PRIOR_MEAN = np.array([0, -0.16, -0.2, 0, 0.6, np.log(0.03), np.log(0.03), np.arctanh(-0.4)])
PRIOR_SD = np.array([0.7, 0.06, 0.3, 0.7, 0.15, 1.0, 1.0, 0.3])
# How the best rate follows a batch that is not the best one, where the cells do not say.
PRIOR_RIDGE = 0.4

# The parabola holds near its vertex: a cell is known to this share of its height above the best.
MISFIT = 0.6
# Noise before anything is seen, and for how many runs that counts.
NOISE, NOISE_RUNS = 0.007, 4.0
# Degrees of freedom of the errors: a seed that stays on a plateau is not believed.
TAILS = 3.0
# A diverged run lies at least this far above the best, in ln L.
DIVERGED = 0.05
# What power laws miss of the best rates and batches of single models, in logarithms.
LAW_SCATTER = 0.1
# How much each group has of its own: its level (free), the logarithm of the steepness, and how far
# its best ln rate and ln batch lie beside the law.
OWN_SD = (np.inf, 0.5, LAW_SCATTER, LAW_SCATTER)
# The bowl of what is not tuned is flat: nothing is known about other values of it.
FLAT = 1e-12
# The search: steps at most, the longest step in any parameter, and when it ends.
ROUNDS, LONGEST_STEP, CONVERGED = 60, 0.5, 1e-6


def fit_recipe(
    cells: pd.DataFrame,
    *,
    tuned: Sequence[str] = ("learning_rate", "batch_size"),
    tokens_per_example: float = 1.0,
) -> RecipeLaw | None:
    """Fit the laws of the best learning rate and batch size.

    Args:
        cells: One row a run, with columns compute_budget (FLOPs), num_params, num_tokens,
            learning_rate, batch_size (examples a step) and loss (NaN: it diverged). Runs of one
            size at one compute budget are compared with each other. Seeds are further rows.
        tuned: What is found: "learning_rate", "batch_size" or both. The law of the other is that
            of the cells themselves.
        tokens_per_example: Units of D in an example.

    Returns:
        The law, or None where the cells say nothing: no group of finite losses in which what is
        tuned differs.
    """
    table = _table(cells)
    if table is None or not any(table.varies(name) for name in tuned):
        return None
    fit = _search(table, _prior(table, tuned))
    vector, covariance = _as_law(fit)
    return RecipeLaw(
        # Last bits, in which machines differ, decide no recipe.
        vector=tuple(round(float(v), 9) for v in vector),
        covariance=tuple(tuple(float(v) for v in row) for row in covariance),
        centre=table.centre,
        tuned=tuple(name for name in ("learning_rate", "batch_size") if name in tuned),
        noise=round(fit.noise, 9),
        tokens_per_example=float(tokens_per_example),
        largest=table.largest,
        largest_budget=table.largest_budget,
    )


@dataclass(frozen=True)
class _Table:
    """Cells as arrays, one element a run.

    Attributes:
        n, d: ln N and ln D over the centre.
        rate, batch: Their logarithms.
        loss: ln L; of a diverged run, the least that counts against it.
        group, cell: Which size and budget, and which cell of all.
        runs: How many runs there are of the same cell.
        diverged: Whether the run diverged.
        centre, largest, largest_budget: As in `RecipeLaw`.
    """

    n: Array
    d: Array
    rate: Array
    batch: Array
    loss: Array
    group: NDArray[np.intp]
    cell: NDArray[np.intp]
    runs: Array
    diverged: NDArray[np.bool_]
    centre: tuple[float, float]
    largest: tuple[float, float]
    largest_budget: float

    def mean_of_cell(self, values: Array) -> Array:
        """Mean over the runs of the same cell, for each run."""
        return np.bincount(self.cell, values)[self.cell] / self.runs

    def varies(self, name: str) -> bool:
        """Whether runs of one group with a finite loss differ in it."""
        values = self.rate if name == "learning_rate" else self.batch
        known = ~self.diverged
        return any(np.ptp(values[known & (self.group == g)]) > 0 for g in np.unique(self.group))


def _table(cells: pd.DataFrame) -> _Table | None:
    """The runs of all groups in which one has a finite loss, in an order of their own."""
    columns = ["compute_budget", "num_params", "learning_rate", "batch_size", "num_tokens", "loss"]
    group = ["compute_budget", "num_params"]
    if "seed" in cells:  # runs of one seed begin alike: they are compared with each other
        columns, group = ["seed", *columns], [*group, "seed"]
    cells = cells[columns].astype(float).replace([np.inf, -np.inf], np.nan)
    cells = cells.dropna(subset=columns[:-1]).sort_values(columns, ignore_index=True)
    # The same loss to the last bit is the same run, told twice.
    cells = cells.drop_duplicates(ignore_index=True)
    cells["loss"] = log_losses(cells["loss"].to_numpy())
    cells["diverged"] = cells["loss"].isna()
    cells["best"] = cells.groupby(group)["loss"].transform("min")
    cells = cells[cells["best"].notna()]
    if cells.empty:
        return None
    known = cells[~cells["diverged"]]
    logs = np.log(cells[["num_params", "num_tokens", "learning_rate", "batch_size"]].to_numpy())
    centre = np.log(known[["num_params", "num_tokens"]].to_numpy()).mean(axis=0)
    cell = cells.groupby([*group, "learning_rate", "batch_size"]).ngroup().to_numpy()
    return _Table(
        n=logs[:, 0] - centre[0],
        d=logs[:, 1] - centre[1],
        rate=logs[:, 2],
        batch=logs[:, 3],
        loss=cells["loss"].fillna(cells["best"] + DIVERGED).to_numpy(),
        group=cells.groupby(group).ngroup().to_numpy().astype(np.intp),
        cell=cell.astype(np.intp),
        runs=np.bincount(cell)[cell].astype(float),
        diverged=cells["diverged"].to_numpy(),
        centre=(float(np.exp(centre[0])), float(np.exp(centre[1]))),
        largest=(float(known["num_params"].max()), float(known["num_tokens"].max())),
        largest_budget=float(known["compute_budget"].max()),
    )


@dataclass(frozen=True)
class _Prior:
    """Means and standard deviations of the vector that is searched, and which of it is free."""

    mean: Array
    sd: Array
    free: NDArray[np.intp]


def _prior(table: _Table, tuned: Sequence[str]) -> _Prior:
    """The published exponents, and the place of the best cells."""
    mean, sd = PRIOR_MEAN.copy(), PRIOR_SD.copy()
    if "batch_size" not in tuned:
        mean[[LOG_BATCH, BATCH_D]] = _followed(table.batch, table.d)
        mean[[BATCH_BOWL, RHO]] = np.log(FLAT), 0
        mean[ALONG_C] += PRIOR_RIDGE * (mean[BATCH_D] - PRIOR_MEAN[BATCH_D]) / 2
        sd[ALONG_C] = 0.1
    if "learning_rate" not in tuned:
        mean[LOG_RATE], rate_n, rate_d = _followed(table.rate, table.n, table.d)
        mean[ALONG_C], mean[ALONG_ROW] = (rate_n + rate_d) / 2, (rate_n - rate_d) / 2
        mean[[RATE_BOWL, RHO]] = np.log(FLAT), 0
        mean[BATCH_D] += PRIOR_RIDGE * 2 * (mean[ALONG_C] - PRIOR_MEAN[ALONG_C])
        sd[BATCH_D] = 0.25
    near = _near_best(table)
    if "learning_rate" in tuned:
        mean[LOG_RATE] = near @ (table.rate - _rate(mean, table) + mean[LOG_RATE])
    if "batch_size" in tuned:
        mean[LOG_BATCH] = near @ (table.batch - mean[BATCH_D] * table.d)
    free = [place for name in tuned for place in FOUND[name]]
    free += [RHO] if len(tuned) == 2 else []
    return _Prior(mean, sd, np.array(sorted(free)))


def _near_best(table: _Table) -> Array:
    """Weights of the runs that are hardly worse than the best of their group."""
    best = np.full(table.group.max() + 1, np.inf)
    np.minimum.at(best, table.group, table.loss)
    weights = np.exp(-(table.loss - best[table.group]) / 0.01)
    return weights / weights.sum()


def _followed(y: Array, *by: Array) -> Array:
    """Intercept and slopes of y, as flat as the runs allow."""
    design = np.column_stack([np.ones_like(y), *by])
    # N and D of one budget are in line, but for the rounding to whole steps.
    return linalg.lstsq(design, y, cond=0.02)[0]


@dataclass(frozen=True)
class _Fit:
    """Where the search ended: the vector, the covariance of its free part, and the noise."""

    vector: Array
    free: NDArray[np.intp]
    covariance: Array
    noise: float


def _rate(vector: Array, table: _Table) -> Array:
    """The logarithm of rate* of each run."""
    p, q = vector[ALONG_C] + vector[ALONG_ROW], vector[ALONG_C] - vector[ALONG_ROW]
    return vector[LOG_RATE] + p * table.n + q * table.d


def _bowl(vector: Array, own: Array, table: _Table) -> tuple[Array, Array, Array]:
    """Height of each run in the bowl of its group, and its derivatives.

    Args:
        vector: The vector that is searched.
        own: What each group has of its own, (groups, 4): level, steepness, and how far its best
            ln rate and ln batch lie beside the law.
        table: The runs.

    Returns:
        The heights without the level, and their derivatives by the vector, (runs, 8), and with
        the level by what the group of the run has of its own, (runs, 4).
    """
    _, steepness, beside_rate, beside_batch = own[table.group].T
    x = table.rate - _rate(vector, table) - beside_rate
    y = table.batch - vector[LOG_BATCH] - vector[BATCH_D] * table.d - beside_batch
    c_r, c_b = np.exp(vector[[RATE_BOWL, BATCH_BOWL], None] + steepness)
    rho, both = np.tanh(vector[RHO]), np.sqrt(c_r * c_b)
    product = both * x * y
    by_x = 2 * (c_r * x + rho * both * y)
    by_y = 2 * (c_b * y + rho * both * x)
    height = c_r * x**2 + c_b * y**2 + 2 * rho * product
    by_vector = [
        -by_x,
        -by_x * (table.n + table.d),
        -by_x * (table.n - table.d),
        -by_y,
        -by_y * table.d,
        c_r * x**2 + rho * product,
        c_b * y**2 + rho * product,
        2 * (1 - rho**2) * product,
    ]
    by_own = [np.ones_like(x), height, -by_x, -by_y]
    return height, np.column_stack(by_vector), np.column_stack(by_own)


def _search(table: _Table, prior: _Prior) -> _Fit:
    """Iterated least squares: errors by the last fit, then a step to the most probable law."""
    groups = np.eye(table.group.max() + 1)[table.group]
    vector, own = prior.mean.copy(), np.zeros((groups.shape[1], len(OWN_SD)))
    own[:, 0] = [table.loss[of > 0].min() for of in groups.T]
    free, count = prior.free, len(prior.free)
    precision = np.concatenate([prior.sd[free], np.tile(OWN_SD, len(own))]) ** -2
    noise, weights = np.full(len(own), NOISE), None
    for _ in range(ROUNDS):
        height, by_vector, by_own = _bowl(vector, own, table)
        residual = table.loss - own[table.group, 0] - height
        variance, tails = _errors(table, height, residual, noise)
        # Half-way to the new weights: alone, they would swing.
        weights = tails / variance if weights is None else np.sqrt(weights * tails / variance)
        by_groups = (groups[:, :, None] * by_own[:, None, :]).reshape(len(groups), -1)
        jacobian = np.hstack([by_vector[:, free], by_groups])
        covariance = linalg.inv((jacobian.T * weights) @ jacobian + np.diag(precision))
        from_prior = np.concatenate([(prior.mean - vector)[free], -own.ravel()])
        step = covariance @ (jacobian.T @ (weights * residual) + precision * from_prior)
        largest = np.abs(step[:count]).max()
        step *= min(1, LONGEST_STEP / max(largest, CONVERGED))
        vector[free] += step[:count]
        own = own + step[count:].reshape(own.shape)
        degrees = 1 - weights * np.einsum("ij,ij->i", jacobian @ covariance, jacobian)
        noise, pooled = _noise(table, noise, variance, tails * residual**2, degrees)
        if largest < CONVERGED:
            break
    scale = max(1.0, float(weights @ residual**2) / max(1.0, float(degrees.sum())))
    of_seeds = _noise_of_seeds(table, pooled, variance)
    return _Fit(vector, free, covariance[:count, :count] * scale, of_seeds)


def _errors(table: _Table, height: Array, residual: Array, noise: Array) -> tuple[Array, Array]:
    """Variance of each run's ln L, and how much it is believed (Student's t)."""
    of_noise = noise[table.group]
    # What a cell lies above the bowl counts as height, as far as it is more than noise.
    more = table.mean_of_cell(residual) - of_noise / np.sqrt(table.runs)
    above = height + np.maximum(more, 0)
    variance = of_noise**2 + table.runs * (MISFIT * above) ** 2
    believed = (TAILS + 1) / (TAILS + residual**2 / variance)
    # A diverged run says only that the bowl is not lower there.
    return variance, np.where(table.diverged & (residual < 0), 1e-12, believed)


def _noise(
    table: _Table, noise: Array, variance: Array, squares: Array, degrees: Array
) -> tuple[Array, float]:
    """Noise of each group, drawn towards that of all, and the noise of all."""
    share = noise[table.group] ** 2 / variance
    seen = np.bincount(table.group, share * squares)
    count = np.maximum(np.bincount(table.group, share * degrees), 0)
    pooled = (NOISE_RUNS * NOISE**2 + seen.sum()) / (NOISE_RUNS + count.sum())
    each = (NOISE_RUNS * pooled + seen) / (NOISE_RUNS + count)
    return np.sqrt(each), float(np.sqrt(pooled))


def _noise_of_seeds(table: _Table, pooled: float, variance: Array) -> float:
    """Noise as runs of the same cell show it, drawn towards the scatter about the bowl."""
    squares = (table.loss - table.mean_of_cell(table.loss)) ** 2
    counts = (table.runs > 1) & ~table.diverged
    share = np.where(counts, pooled**2 / variance, 0.0)
    believed = share * (TAILS + 1) / (TAILS + squares / pooled**2)
    seen, count = believed @ squares, share @ (1 - 1 / table.runs)
    return float(np.sqrt((NOISE_RUNS * pooled**2 + seen) / (NOISE_RUNS + count)))


def _as_law(fit: _Fit) -> tuple[Array, Array]:
    """The vector and covariance of `RecipeLaw`: p and q for s and t, and the scatter of laws."""
    turn = np.eye(8)
    turn[ALONG_C, [ALONG_C, ALONG_ROW]] = 1, 1
    turn[ALONG_ROW, [ALONG_C, ALONG_ROW]] = 1, -1
    covariance = np.zeros((8, 8))
    covariance[np.ix_(fit.free, fit.free)] = fit.covariance
    for place in (LOG_RATE, LOG_BATCH):
        if place in fit.free:
            covariance[place, place] += LAW_SCATTER**2
    return turn @ fit.vector, turn @ covariance @ turn.T
