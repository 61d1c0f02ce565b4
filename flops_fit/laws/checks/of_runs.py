"""Checks of the runs and of their design: what they can carry, before any fit."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flops_fit.laws.check import Check, counted, graded
from flops_fit.laws.runs.budgets import group_budgets
from flops_fit.laws.runs.exclusions import CHECKING, DIVERGED, MOST_EPOCHS, REPEATED, TUNED, epochs

FEW_RUNS, FEW_BUDGETS, FEW_SIZES, SHORT_SPAN = 20, 4, 5, 1.5
MANY_EPOCHS = 4.0
LONG_WARMUP = (0.10, 0.25)
BIG_EMBEDDING = 0.20
FEW_STEPS = 200
FEW_RATES = 3
EDGE_GAIN = 0.002  # of the loss: seeds of small models differ by as much
ROUNDED = 0.01
DROPPED = 0.10
SEED_RATIO = 1.5
SAME = 1e-9


def check_runs(runs: pd.DataFrame, tolerance: float) -> list[Check]:
    """Every doubt about the table itself."""
    good = runs[runs["excluded"] == ""]
    return [
        *check_design(good, tolerance),
        *check_excluded(runs),
        *check_epochs(runs),
        *check_warmup(runs),
        *check_embedding(good),
        *check_steps(good),
        *check_rounding(good),
        *check_learning_rates(runs),
    ]


def check_design(good: pd.DataFrame, tolerance: float) -> list[Check]:
    """Too few runs, budgets or sizes, or too short a span."""
    C = good["compute_budget"].to_numpy(float)
    labels = group_budgets(C, tolerance)
    sizes = [good.loc[labels == g, "num_params"].nunique() for g in np.unique(labels)]
    runs, budgets = counted(len(C), "run"), counted(len(sizes), "budget")
    middle = float(np.median(sizes))
    few = counted(int(middle), "size")
    span = float(np.log10(C.max() / C.min()))
    faults = [
        (len(C) < FEW_RUNS, "few-runs", f"only {runs} to fit (best {FEW_RUNS} or more)"),
        (
            len(sizes) < FEW_BUDGETS,
            "few-budgets",
            f"only {budgets} (best {FEW_BUDGETS} or more)",
        ),
        (
            middle < FEW_SIZES,
            "few-sizes",
            f"half of the budgets have {few} or fewer (best {FEW_SIZES} or more)",
        ),
        (
            span < SHORT_SPAN,
            "short-span",
            f"the budgets span a factor of {10**span:.2g} (best {10**SHORT_SPAN:.2g} or more)",
        ),
    ]
    advice = "Width and span of the grid help more than more runs in the same place."
    return [Check(code, "warn", f"{said}.", advice) for wrong, code, said in faults if wrong]


def check_excluded(runs: pd.DataFrame) -> list[Check]:
    """Runs left out, by reason; two diverged among few are too many.

    Runs that were to try another learning rate do not count.
    """
    reasons = runs.loc[~runs["excluded"].isin(["", TUNED, CHECKING]), "excluded"]
    if reasons.empty:
        return []
    listed = ", ".join(f"{n} ({reason})" for reason, n in reasons.value_counts().items())
    bad = reasons.isin(["diverged", DIVERGED, "loss is not finite"]).sum()
    grave = bad >= 2 and len(runs) < FEW_RUNS
    checks = [
        Check(
            "runs-excluded",
            "refuse" if grave else "warn",
            f"{len(reasons)} of {counted(len(runs), 'run')} left out: {listed}.",
            "Find out why they diverged and train them again."
            if grave
            else "See runs['excluded'].",
        )
    ]
    outliers = int(reasons.str.startswith("outlier").sum())
    share = outliers / len(runs)
    if share > DROPPED:
        checks.append(
            Check(
                "many-outliers",
                "warn",
                f"{outliers} of {len(runs)} runs ({share:.0%}) lie far above the law.",
                "So many are rather a sign that the law does not hold for all runs.",
            )
        )
    return checks


def check_epochs(runs: pd.DataFrame) -> list[Check]:
    """Data repeated so often that it is not as good as new."""
    most = float(np.nanmax(np.append(epochs(runs), 0.0)))
    refuse = MOST_EPOCHS if (runs["excluded"] == REPEATED).any() else np.inf
    advice = "Train on more data, or for fewer passes: Recipe(max_epochs=...)."
    return graded(
        "many-epochs", most, MANY_EPOCHS, refuse, f"a run saw its data {most:.3g} times.", advice
    )


def check_warmup(runs: pd.DataFrame) -> list[Check]:
    """Warm-up that eats into short runs: it raises the exponent of N."""
    longest = _largest(runs, "warmup_fraction")
    message = f"a run spent {longest:.0%} of its steps on warm-up."
    advice = "Give warm-up as a fraction of each run."
    return graded("long-warmup", longest, *LONG_WARMUP, message, advice)


def check_embedding(good: pd.DataFrame) -> list[Check]:
    """Embedding and head that make up much of N: the convention of N then moves the exponent."""
    if "embedding_params" not in good:
        return []
    share = float((good["embedding_params"].astype(float) / good["num_params"]).max())
    message = f"embedding and head make up to {share:.0%} of a model's parameters."
    advice = "Exponents hold for this way of counting N only; count all parameters and measured C."
    return graded("embedding-share", share, BIG_EMBEDDING, np.inf, message, advice)


def check_steps(good: pd.DataFrame) -> list[Check]:
    """Runs so short that their schedule is coarse."""
    if "steps" not in good:
        return []
    least = float(good["steps"].astype(float).min())
    if not least < FEW_STEPS:
        return []
    advice = "Use smaller batches or larger budgets."
    return [
        Check(
            "few-steps",
            "warn",
            f"a run has only {least:g} steps (best {FEW_STEPS} or more).",
            advice,
        )
    ]


def check_rounding(good: pd.DataFrame) -> list[Check]:
    """Compute spent that is not the budget's, by rounding to whole batches."""
    off = float((good["flops"] / good["compute_budget"] - 1).abs().max())
    if not off > ROUNDED:
        return []
    message = f"a run spent {off:.1%} more or less than its budget."
    return [Check("rounded-tokens", "warn", message, "Use smaller batches, or read C from flops.")]


def check_learning_rates(runs: pd.DataFrame) -> list[Check]:
    """A best learning rate at the edge of those tried, by more than noise would make it."""
    finished = runs[np.isfinite(runs["loss"])]
    point = [finished["compute_budget"], finished["size"].map(str)]
    tried = finished.groupby(point)["lr_multiplier"].transform("nunique") >= FEW_RATES
    edges = []
    for (budget, size), own in finished[tried].groupby([key[tried] for key in point]):
        losses = own.groupby("lr_multiplier")["loss"].mean()
        best = float(losses.idxmin())
        inner = losses.iloc[1:-1].min()
        gain = (inner - losses.min()) / abs(inner)
        if gain > EDGE_GAIN:
            edges.append(f"x{best:g} at size {size}, C = {budget:.3g} (loss {gain:.1%} lower)")
    if not edges:
        return []
    message = f"another learning rate, the farthest tried, did better: {'; '.join(edges[:5])}."
    return [Check("lr-at-edge", "warn", message, "Widen the range, or change the recipe's rule.")]


def check_seed_noise(good: pd.DataFrame, residual_std: float) -> list[Check]:
    """Residuals that are larger than seeds alone make them: the law misses something."""
    key = [good["num_params"], good["num_tokens"]]
    loss = np.log(good["loss"].where(good["loss"] > 0))
    several = loss.groupby(key).transform("count") > 1
    dof = int(several.sum()) - loss[several].groupby([k[several] for k in key]).ngroups
    if dof < 3:
        return []
    spread = loss - loss.groupby(key).transform("mean")
    sigma = float(np.sqrt((spread[several] ** 2).sum() / dof))
    if not residual_std > SEED_RATIO * sigma or sigma < SAME:
        return []
    message = f"residuals of {residual_std:.2g} are {residual_std / sigma:.1f} times seed noise."
    advice = "Something besides N and D moves the loss: learning rate, batch, repeated data."
    return [Check("residual-over-seed", "warn", message, advice)]


def _largest(runs: pd.DataFrame, column: str) -> float:
    if column not in runs:
        return 0.0
    return float(np.nanmax(np.append(pd.to_numeric(runs[column], errors="coerce"), 0.0)))
