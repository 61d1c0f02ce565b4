"""The optimal model at given compute budgets, with 95 % intervals.

Every budget gets N, D and the loss of the headline law: on the compute-optimal frontier, or on the
path that a constraint leaves (`paths`). Then N moves to what all approaches say of it, and the loss
to what the runs near it say of the law's error (`corrected`).

An interval consists of the uncertainty of the law's parameters (`inference.intervals`), of the
law's misfit, of the cost of a token, of the recipe (`best_recipe`) and, for a new run, of
the noise. Where no parametric law could be fitted, the power laws through the IsoFLOP minima are
used, without intervals.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.findings import Findings
from flops_fit.laws.inference.intervals import NORMAL
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.predict.at_model import least_loss
from flops_fit.laws.predict.best_recipe import recipe_errors, with_recipe
from flops_fit.laws.predict.corrected import with_misfit
from flops_fit.laws.predict.known import withhold_unknown
from flops_fit.laws.predict.paths import (
    UNCONSTRAINED,
    Ends,
    Terms,
    law_ends,
    parameter_errors,
    path,
)
from flops_fit.laws.timing.speed import Speed

# Prefixes of the columns with the parts of an interval, and with the weights of the approaches.
PART, WEIGHT = "part_", "weight_"


def predict_intervals(findings: Findings, C: Array, terms: Terms = UNCONSTRAINED) -> pd.DataFrame:
    """Predict N, D and loss at each budget, with 95 % intervals.

    Args:
        findings: The fitted laws.
        C: Budgets in FLOPs, shape (k,).
        terms: The constraint to satisfy.

    Returns:
        One row per budget with `FRONTIER_COLUMNS`, and `new_run_low` and `new_run_high`, the
        interval for the loss of one further run. Interval columns are NaN where only the IsoFLOP
        power laws are available, and 0 and inf where a value is not known (`known`). Further
        columns hold the parts of the intervals (`PART`), the weights of the approaches in N
        (`WEIGHT`) and, if there is a recipe law, the recipe (`best_recipe`).

    Raises:
        FitError: No law was fitted, or none that can satisfy the constraint.
    """
    if findings.law is None:
        return with_recipe(findings, _from_power_laws(findings, C, terms))
    with np.errstate(all="ignore"):
        of_law = law_ends(findings, C, terms)
        moved = with_misfit(findings, C, terms, of_law)
        errors_of = _cost_errors if terms.wall_time is None else _speed_errors
        error, scatter = errors_of(findings, of_law.middle, C, terms)
        ends = _widened(moved.ends, NORMAL * error)
        of_recipe = recipe_errors(findings, C, ends.middle, terms)
        ends = _widened(ends, of_recipe)
        noise = np.hypot(moved.noise, NORMAL * scatter[2 * len(C) :])
    shares = {f"{WEIGHT}{name}": weight for name, weight in moved.weights.items()}
    frame = _frame(C, ends, noise, least_loss(findings))
    sizes = parameter_errors(findings, C, terms)[: len(C)]
    parts = _parts(sizes, moved.parameters, of_recipe, ends, noise)
    if findings.recipe_law is None:
        parts = {name: part for name, part in parts.items() if not name.endswith("recipe")}
    frame = withhold_unknown(findings, frame.assign(**parts, **shares))
    return with_recipe(findings, frame)


def _cost_errors(findings: Findings, middle: Array, C: Array, terms: Terms) -> tuple[Array, Array]:
    """Standard errors of (ln N, ln D, L) by the cost f(N), shape (3 k,) each.

    Returns:
        The error of the smooth f together with, for ln D, the scatter of a single size about it;
        and the effect of that scatter alone, which the loss of one run has too.
    """
    law, cost = findings.law, findings.cost
    assert law is not None

    def change(cost: FlopsPerToken) -> Array:
        kappa, curve = cost.flops_per_param_token, cost.curve
        moved_law = replace(law, flops_per_param_token=kappa, curve=curve)
        moved = replace(findings, cost=cost, law=moved_law)
        return np.hstack(path(moved, law.vector[None], C, terms))[0] - middle

    scatter = change(cost.scaled(cost.scatter)) if cost.scatter else np.zeros_like(middle)
    tokens = slice(len(C), 2 * len(C))
    parts = [change(away) for away in cost.one_error_away()]
    of_one_size = np.zeros_like(middle)
    of_one_size[tokens] = cost.scatter
    return np.sqrt(np.sum(np.square([of_one_size, *parts]), axis=0)), np.abs(scatter)


def _speed_errors(findings: Findings, middle: Array, C: Array, terms: Terms) -> tuple[Array, Array]:
    """Standard errors of (ln N, ln D, L) by the time that a token takes, shape (3 k,) each.

    Returns:
        The errors, and zeros: what a run does not reach in its time is not noise.
    """
    assert terms.wall_time is not None
    wall_time = terms.wall_time

    def change(speed: Speed, rows: int = 1) -> Array:
        moved = replace(terms, wall_time=replace(wall_time, speed=speed))
        laws = np.repeat(findings.law_vector, rows, axis=0)
        return np.hstack(path(findings, laws, C, moved)) - middle

    step = wall_time.speed.step
    drawn = change(wall_time.speed.drawn(len(step.draws)), len(step.draws))
    (scatter,) = change(wall_time.speed.slowed(step.scatter))
    return np.sqrt(np.mean(np.square(drawn), axis=0) + scatter**2), np.zeros_like(middle)


def _widened(ends: Ends, half: Array) -> Ends:
    """The ends with one more independent half-width, added in quadrature on either side."""
    if not half.any():
        return ends
    middle = ends.middle
    low, high = np.hypot(middle - ends.low, half), np.hypot(ends.high - middle, half)
    return Ends(middle, middle - low, middle + high)


def _parts(
    sizes: Array, losses: Array, of_recipe: Array, ends: Ends, noise: Array
) -> dict[str, Array]:
    """What the intervals consist of: half-widths of ln N and of L, shape (k,) each.

    Args:
        sizes: Half-widths of ln N by the law's parameters alone.
        losses: Half-widths of L by them.
        of_recipe: Half-widths of (ln N, ln D, L) by the recipe.
        ends: The predictions.
        noise: How far the loss of one run lies from its mean.
    """
    k, columns = len(noise), {}
    for name, law, at in (("num_params", sizes, slice(0, k)), ("loss", losses, slice(2 * k, None))):
        whole, recipe = ends.half[at], of_recipe[at]
        columns[f"{PART}{name}_parameters"] = np.fmin(law, whole)
        misfit = whole**2 - law**2 - recipe**2
        columns[f"{PART}{name}_misfit"] = np.sqrt(np.maximum(misfit, 0.0))
        columns[f"{PART}{name}_recipe"] = recipe
    return {**columns, f"{PART}loss_noise": noise}


def _from_power_laws(findings: Findings, C: Array, terms: Terms) -> pd.DataFrame:
    """Predict from the IsoFLOP power laws alone, without intervals."""
    laws = findings.power_laws
    if laws.n_opt.refused or terms.given:
        reasons = [check.message for check in findings.checks if check.severity == "refuse"]
        raise FitError(
            f"no law could be fitted to these runs: {' '.join(reasons)}", findings.checks
        )
    middle = np.concatenate([np.log(laws.n_opt(C)), np.log(laws.d_opt(C)), laws.l_opt(C)])
    unknown = np.full_like(middle, math.nan)
    return _frame(C, Ends(middle, unknown, unknown), unknown[: len(C)], -math.inf)


def _frame(C: Array, ends: Ends, noise: Array, least_loss: float) -> pd.DataFrame:
    """The table, from values laid out as (ln N, ln D, L), and the noise of one run."""
    columns: dict[str, Array] = {"compute_budget": C}
    with np.errstate(over="ignore"):
        for suffix, part in (("", ends.middle), ("_low", ends.low), ("_high", ends.high)):
            x, y, loss = np.split(part, 3)
            columns |= {f"num_params{suffix}": np.exp(x), f"num_tokens{suffix}": np.exp(y)}
            columns[f"loss{suffix}"] = loss
    columns["tokens_per_param"] = columns["num_tokens"] / columns["num_params"]
    columns |= run_interval(columns["loss"], columns["loss_low"], columns["loss_high"], noise)
    # No loss lies below the low end of E's interval; the loss of one noisy run may, but stays
    # positive.
    for name, least in (("loss_low", least_loss), ("new_run_low", min(least_loss, 0.0))):
        columns[name] = np.minimum(np.maximum(columns[name], least), columns["loss"])
    return pd.DataFrame(columns)


def run_interval(value: Array, low: Array, high: Array, noise: Array) -> dict[str, Array]:
    """The interval of the loss of one new run, from that of its mean and the run's noise."""
    return {
        "new_run_low": value - np.hypot(value - low, noise),
        "new_run_high": value + np.hypot(high - value, noise),
    }
