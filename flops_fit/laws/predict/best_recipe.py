"""The recipe to train a model with, and what following an uncertain one costs.

Learning rate and batch size are those of the recipe law at N and D, the batch in whole examples and
small enough for 1,000 steps if that costs little, the rate the one that suits this batch.

Errors follow from the recipe. What it is expected to have cost each run, by its distance from the
law and by the error of the law, is taken off the losses, and the law of the loss is fitted again:
how far that moves the best size is an error of ln N, how far it moves the loss one of the loss. Of
that, what an uncertain law costs near the largest budget does not count, since whoever follows the
law there pays it too; but further away, where the law is known less well, it costs more.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from flops_fit.laws.distributions import chi2_quantile
from flops_fit.laws.findings import TUNED_FIT, Findings
from flops_fit.laws.inference.intervals import LEVEL
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.laws.model.recipe_rules import RULES
from flops_fit.laws.predict.paths import Terms, log_tokens

RECIPE_COLUMNS = tuple(
    f"{name}{end}" for name in ("learning_rate", "batch_size") for end in ("", "_low", "_high")
)
# The cost of a recipe is the square of how far it is off, whose 95 % point is so many times its
# mean (chi-squared with one degree of freedom; with two it is a little less).
_OF_MEAN = chi2_quantile(LEVEL, 1)


def recipe_at(recipe: RecipeLaw, C: Array, N: Array, D: Array) -> dict[str, Array]:
    """Learning rate and batch size for models, with 95 % intervals.

    Args:
        recipe: The recipe law.
        C: Budgets in FLOPs, shape (k,).
        N: Parameters, shape (k,).
        D: Tokens or examples, shape (k,).

    Returns:
        `RECIPE_COLUMNS`, shape (k,) each; batches in examples. Without those of a value that was
        given to the sweep and differed between its runs by no published rule: how it goes on is
        not known here.
    """
    most = recipe.most_batch(N, D)
    low, high = (np.clip(end, 1.0, most) for end in recipe.batch_size_interval(N, D))
    batch = np.clip(np.rint(recipe.batch_size(N, D)), 1.0, most)
    rate = recipe.learning_rate(N, D, batch)
    moved = rate / recipe.learning_rate(N, D)
    rate_low, rate_high = (moved * end for end in recipe.learning_rate_interval(N, D))
    if recipe.batch_rule:
        batch = low = high = _batch_by_rule(recipe, C, N, D)
    columns = (
        *(rate, rate_low, rate_high),
        *(batch, np.minimum(low, batch), np.maximum(high, batch)),
    )
    found = dict(zip(RECIPE_COLUMNS, columns, strict=True))
    unknown = tuple(name for name in ("learning_rate", "batch_size") if not recipe.is_known(name))
    return {name: column for name, column in found.items() if not name.startswith(unknown)}


def with_recipe(findings: Findings, frame: pd.DataFrame) -> pd.DataFrame:
    """A table of predictions with the columns of the recipe, where there is a recipe law.

    Args:
        findings: The fitted laws.
        frame: Predictions, with columns `compute_budget`, `num_params` and `num_tokens`.
    """
    if findings.recipe_law is None:
        return frame
    names = ("compute_budget", "num_params", "num_tokens")
    C, N, D = (frame[name].to_numpy(float) for name in names)
    with np.errstate(all="ignore"):
        return frame.assign(**recipe_at(findings.recipe_law, C, N, D))


def _batch_by_rule(recipe: RecipeLaw, C: Array, N: Array, D: Array) -> Array:
    """Whole examples a step by the rule that the runs followed, shape (k,)."""
    tokens = np.array([RULES[recipe.batch_rule](*place)[1] for place in zip(C, N, D, strict=True)])
    return np.maximum(np.rint(tokens / recipe.tokens_per_example), 1.0)


def recipe_errors(findings: Findings, C: Array, middle: Array, terms: Terms) -> Array:
    """Half-widths of (ln N, ln D, L) at 95 % by the recipe, shape (3 k,).

    Args:
        findings: The fitted laws, with a headline.
        C: Budgets in FLOPs, shape (k,).
        middle: The predictions (ln N, ln D, L).
        terms: The constraint that they satisfy.
    """
    if findings.recipe_law is None:
        return np.zeros_like(middle)
    x, y, loss = np.split(middle, 3)
    sizes, tokens, tuned = np.zeros_like(x), np.zeros_like(y), findings.fits.get(TUNED_FIT)
    # A given ratio of D to N leaves no choice of the size.
    if tuned is not None and findings.law is not None and terms.tokens_per_param is None:
        sizes = np.abs(np.log(tuned.law.n_opt(C) / findings.law.n_opt(C)))
        tokens = np.abs(log_tokens(findings, C, terms, x + sizes) - y)
    return np.concatenate([sizes, tokens, loss_error(findings, x, y, loss)])


def loss_error(findings: Findings, x: Array, y: Array, loss: Array) -> Array:
    """Half-width of the loss at 95 % by the recipe: of the runs, and of the model to be trained.

    Args:
        findings: The fitted laws.
        x: ln N, shape (k,).
        y: ln D, shape (k,).
        loss: The loss, shape (k,).
    """
    recipe = findings.recipe_law
    if recipe is None:
        return np.zeros_like(loss)
    runs = findings.fitted_runs[findings.fitted_runs["compute_budget"] == findings.largest_budget]
    N, D = (runs[name].to_numpy(float) for name in ("num_params", "num_tokens"))
    usual = recipe.expected_excess(N, D).mean()
    growth = recipe.expected_excess(np.exp(x), np.exp(y)) - usual
    runs_off, tuned = np.zeros_like(x), findings.fits.get(TUNED_FIT)
    if tuned is not None and findings.law is not None:
        at = np.exp(x), np.exp(y)
        runs_off = np.log(findings.law.loss(*at) / tuned.law.loss(*at)) - usual
    parts = np.hypot(_OF_MEAN * np.maximum(growth, 0.0), np.maximum(runs_off, 0.0))
    return np.asarray(np.abs(loss) * parts)
