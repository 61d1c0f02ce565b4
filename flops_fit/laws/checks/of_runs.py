"""Checks of the runs and of their design, before any fit."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flops_fit.display.number_text import percent, times
from flops_fit.laws.check import Check, Severity, counted, graded
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.recipe_law import FEW_STEPS, TOO_FEW_STEPS
from flops_fit.laws.runs.budgets import group_budgets
from flops_fit.laws.runs.exclusions import (
    DIVERGED,
    MOST_EPOCHS,
    REPEATED,
    epochs,
    of_sweep,
    unfit,
)

# Least sound design (docs/method.md, "When it refuses").
FEW_RUNS = 20
FEW_BUDGETS = 4
FEW_SIZES = 5
SHORT_SPAN = 30.0  # factor between the smallest and the largest budget
# Up to four passes repeated data is almost as good as new (Muennighoff et al. 2023, abstract).
MANY_EPOCHS = 4.0
# Warm-up as a share of a run: above the first it warns, above the second it refuses. Long warm-up
# in short runs raises the exponent of N (Porian et al. 2024).
LONG_WARMUP = (0.10, 0.25)
# Embedding and head as a share of N, above which the convention for N moves the exponent.
BIG_EMBEDDING = 0.20
# Learning rates tried at one grid point, from which the best one may lie at an edge.
FEW_RATES = 3
# Share of the loss by which the edge must be better: seeds of small models differ by as much.
EDGE_GAIN = 0.002
ROUNDED = 0.01
# Scatter of FLOPs per token: above the first it is noted, above the second it warns.
SCATTERED = (0.01, 0.05)
# C looks like a label if this share of the runs have a value that so many runs have.
MOST_LABELLED = 0.8
RUNS_PER_LABEL = 3
DROPPED = 0.10
# Residuals over seed noise.
SEED_RATIO = 1.5
# Seed noise below this means that seeds gave the same loss.
SAME = 1e-9
# Degrees of freedom of seed noise, below which it is not known well enough.
FEW_SEEDS = 3

DESIGN_ADVICE = "Width and span of the grid help more than more runs in the same place."


def check_runs(runs: pd.DataFrame, tolerance: float) -> list[Check]:
    """All checks of the table of runs; those trained to find or to check a recipe do not count.

    Args:
        runs: The table, with excluded runs.
        tolerance: Budgets that differ by less than this share are one budget.
    """
    runs = of_sweep(runs)
    fitted = runs[runs["excluded"] == ""]
    budgets = group_budgets(fitted["compute_budget"].to_numpy(float), tolerance)
    return [
        *check_num_runs(fitted),
        *check_num_budgets(budgets),
        *check_num_sizes(fitted, budgets),
        *check_span(fitted),
        *check_excluded(runs),
        *check_outliers(runs),
        *check_epochs(runs),
        *check_warmup(runs),
        *check_embedding(fitted),
        *check_steps(runs),
        *check_rounding(fitted),
        *check_learning_rates(runs),
    ]


def check_num_runs(fitted: pd.DataFrame) -> list[Check]:
    """Warn about fewer than 20 runs."""
    if len(fitted) >= FEW_RUNS:
        return []
    message = f"only {counted(len(fitted), 'run')} to fit ({FEW_RUNS} or more are recommended)."
    return [Check("few-runs", "warn", message, DESIGN_ADVICE)]


def check_num_budgets(budgets: np.ndarray) -> list[Check]:
    """Warn about fewer than 4 budgets.

    Args:
        budgets: The budget of each run, as a label, shape (n,).
    """
    num_budgets = len(np.unique(budgets))
    if num_budgets >= FEW_BUDGETS:
        return []
    message = f"only {counted(num_budgets, 'budget')} ({FEW_BUDGETS} or more are recommended)."
    return [Check("few-budgets", "warn", message, DESIGN_ADVICE)]


def check_num_sizes(fitted: pd.DataFrame, budgets: np.ndarray) -> list[Check]:
    """Warn if half of the budgets have fewer than 5 sizes.

    Args:
        fitted: The runs that take part in the fits.
        budgets: The budget of each run, as a label, shape (n,).
    """
    sizes = [fitted.loc[budgets == g, "num_params"].nunique() for g in np.unique(budgets)]
    median = float(np.median(sizes))
    if median >= FEW_SIZES:
        return []
    few = counted(int(median), "size")
    message = f"half of the budgets have {few} or fewer ({FEW_SIZES} or more are recommended)."
    return [Check("few-sizes", "warn", message, DESIGN_ADVICE)]


def check_span(fitted: pd.DataFrame) -> list[Check]:
    """Warn if the budgets span less than a factor of 30."""
    C = fitted["compute_budget"].to_numpy(float)
    span = float(C.max() / C.min())
    # Budgets of a table may differ from the planned ones by rounding to whole steps.
    if span >= 0.95 * SHORT_SPAN:
        return []
    message = (
        f"the budgets span a factor of {times(span)} ({SHORT_SPAN:.0f} or more is recommended)."
    )
    return [Check("short-span", "warn", message, DESIGN_ADVICE)]


def check_excluded(runs: pd.DataFrame) -> list[Check]:
    """List excluded runs by reason; refuse if two or more of fewer than 20 runs diverged.

    Runs that only served to try another learning rate do not count.
    """
    reasons = unfit(runs)
    if reasons.empty:
        return []
    diverged = reasons.isin(["diverged", DIVERGED, "loss is not finite"]).sum()
    refused = diverged >= 2 and len(runs) < FEW_RUNS
    listed = ", ".join(f"{n} ({reason})" for reason, n in reasons.value_counts().items())
    message = f"{len(reasons)} of {counted(len(runs), 'run')} left out: {listed}."
    if refused:
        advice = "Find out why they diverged and train them again."
        return [Check("runs-excluded", "refuse", message, advice)]
    return [Check("runs-excluded", "warn", message, "See runs['excluded'].")]


def check_outliers(runs: pd.DataFrame) -> list[Check]:
    """Warn if more than 10 % of the runs were screened out as outliers."""
    outliers = int(unfit(runs).str.startswith("outlier").sum())
    share = outliers / len(runs)
    if not share > DROPPED:
        return []
    message = f"{outliers} of {len(runs)} runs ({percent(share)}) are out of line with the others."
    advice = "So many outliers are a sign that the law does not hold for all runs."
    return [Check("many-outliers", "warn", message, advice)]


def check_epochs(runs: pd.DataFrame) -> list[Check]:
    """Warn about more than 4 passes over the data.

    Refuses above 16 passes if such runs had to be excluded because there is no law of repeated
    data.
    """
    most = float(np.nanmax(np.append(epochs(runs), 0.0)))
    refuse = MOST_EPOCHS if (runs["excluded"] == REPEATED).any() else np.inf
    message = f"a run saw its data {times(most)} times"
    message += f"; runs of over {refuse:g} are left out of the fits." if most > refuse else "."
    advice = "Train on more data, or for fewer passes: Recipe(max_epochs=...)."
    return graded("many-epochs", most, MANY_EPOCHS, refuse, message, advice)


def check_warmup(runs: pd.DataFrame) -> list[Check]:
    """Warn about warm-up over 10 % of a run, refuse over 25 % (Porian et al. 2024).

    Warm-up of a fixed length takes a large share of short runs, which raises the exponent of N.
    """
    if "warmup_fraction" not in runs:
        return []
    shares = pd.to_numeric(runs["warmup_fraction"], errors="coerce")
    longest = float(np.nanmax(np.append(shares, 0.0)))
    message = f"a run spent {percent(longest)} of its steps on warm-up"
    left_out = f"; runs of over {percent(LONG_WARMUP[1])} are left out of the fits."
    message += left_out if longest > LONG_WARMUP[1] else "."
    advice = "Give warm-up as a fraction of each run."
    return graded("long-warmup", longest, *LONG_WARMUP, message, advice)


def check_embedding(fitted: pd.DataFrame) -> list[Check]:
    """Warn if embedding and head make up more than 20 % of N.

    The exponent then depends on whether N counts them (simulated, docs/method.md).
    """
    if "embedding_params" not in fitted:
        return []
    share = float((fitted["embedding_params"].astype(float) / fitted["num_params"]).max())
    message = f"embedding and head make up to {percent(share)} of a model's parameters."
    advice = "Exponents hold for this way of counting N only; count all parameters and measured C."
    return graded("embedding-share", share, BIG_EMBEDDING, np.inf, message, advice)


def check_steps(runs: pd.DataFrame) -> list[Check]:
    """Warn about runs with fewer than 200 steps, whose schedule is coarse, also excluded ones."""
    if "steps" not in runs:
        return []
    steps = pd.to_numeric(runs["steps"], errors="coerce")
    short = int((steps < TOO_FEW_STEPS).sum())
    if not short:
        return []
    message = (
        f"{short} of {counted(len(runs), 'run')} have fewer than {FEW_STEPS} steps, the shortest "
        f"{steps.min():g}."
    )
    return [Check("few-steps", "warn", message, "Use smaller batches or larger budgets.")]


def check_rounding(fitted: pd.DataFrame) -> list[Check]:
    """Warn about compute that differs from the budget by more than 1 %.

    Rounding to whole batches causes it.
    """
    off = float((fitted["flops"] / fitted["compute_budget"] - 1).abs().max())
    if not off > ROUNDED:
        return []
    message = f"a run spent {percent(off)} more or less than its budget."
    advice = "Use smaller batches, or give the FLOPs spent as the budget of the run."
    return [Check("rounded-tokens", "warn", message, advice)]


def check_cost(cost: FlopsPerToken, fitted: pd.DataFrame) -> list[Check]:
    """Report costs that scatter about a smooth f(N) by more than 1 %; warn above 5 %."""
    if not cost.scatter > SCATTERED[0]:
        return []
    curve = "a smooth curve in N" if cost.curve else f"{cost.flops_per_param_token:.3g} N"
    message = (
        f"FLOPs per token, C / D, scatter by {percent(cost.scatter)} about {curve}, which is used."
    )
    advice = "The budgets may be rounded, or sizes differ in shape: give the FLOPs that were spent."
    per_value = fitted.groupby("flops")["flops"].transform("size")
    if (per_value >= RUNS_PER_LABEL).mean() > MOST_LABELLED:
        values = fitted["flops"].nunique()
        message += f" C looks nominal: {len(fitted)} runs have {values} values."
    severity: Severity = "warn" if cost.scatter > SCATTERED[1] else "note"
    return [Check("cost-scatter", severity, message, advice)]


def check_learning_rates(runs: pd.DataFrame) -> list[Check]:
    """Warn if the best learning rate lies at the edge of three or more that were tried.

    It counts if it is better than the best inner one by more than 0.2 % of the loss.
    """
    finished = runs[np.isfinite(runs["loss"])]
    point = [finished["compute_budget"], finished["size"].map(str)]
    tried = finished.groupby(point)["lr_multiplier"].transform("nunique") >= FEW_RATES
    edges = []
    for (budget, size), same_point in finished[tried].groupby([key[tried] for key in point]):
        losses = same_point.groupby("lr_multiplier")["loss"].mean()
        best = float(losses.idxmin())
        inner = losses.iloc[1:-1].min()
        gain = (inner - losses.min()) / abs(inner)
        if gain > EDGE_GAIN:
            edges.append(f"x{best:g} at size {size}, C = {budget:.3g} (loss {percent(gain)} lower)")
    if not edges:
        return []
    message = f"the best learning rate is the farthest that was tried: {'; '.join(edges[:5])}."
    return [Check("lr-at-edge", "warn", message, "Widen the range, or change the recipe's rule.")]


def check_seed_noise(fitted: pd.DataFrame, residual_std: float) -> list[Check]:
    """Warn if the residuals are more than 1.5 times the noise between seeds.

    The law then misses something that moves the loss: its form is wrong, or N and D are not all.
    Runs with the same N and D are taken as seeds of one another; at least 3 degrees of freedom are
    needed.

    Args:
        fitted: The runs that take part in the fits.
        residual_std: Residual standard deviation of ln L of the headline.
    """
    key = [fitted["num_params"], fitted["num_tokens"]]
    loss = np.log(fitted["loss"].where(fitted["loss"] > 0))
    repeated = loss.groupby(key).transform("count") > 1
    num_groups = loss[repeated].groupby([k[repeated] for k in key]).ngroups
    dof = int(repeated.sum()) - num_groups
    if dof < FEW_SEEDS:
        return []
    spread = loss - loss.groupby(key).transform("mean")
    sigma = float(np.sqrt((spread[repeated] ** 2).sum() / dof))
    if not residual_std > SEED_RATIO * sigma or sigma < SAME:
        return []
    message = (
        f"residuals of {residual_std:.2g} are {residual_std / sigma:.1f} times seed noise: the law "
        "holds only roughly, or something besides N and D moves the loss."
    )
    advice = "Look at plot('residuals'), and at learning rate, batch and repeated data."
    return [Check("residual-over-seed", "warn", message, advice)]
