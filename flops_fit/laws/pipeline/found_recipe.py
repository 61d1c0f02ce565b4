"""The recipe law of a sweep: its cells, its fit, and what following it does to the loss law.

A sweep that found its recipe has runs of role "pilot" and "check". With the sweep's own runs around
which a check was made they are the cells over learning rate and batch size to which `RecipeLaw` is
fitted. The other runs of the sweep do not count: its law must not change while it is trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.fitting.parametric import ParametricFit, refit
from flops_fit.laws.fitting.recipe_surface import fit_recipe
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.laws.model.recipe_rules import rule_of_batches
from flops_fit.laws.runs.exclusions import RECIPE
from flops_fit.laws.runs.points import Points

# States in which a run says something of its recipe: it has a loss, or has diverged.
_ENDED = ("complete", "diverged")
_CELL = ("compute_budget", "num_params", "num_tokens", "loss", *RECIPE)


def recipe_cells(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs over learning rate and batch size: pilot, check, and the sweep's own it checked.

    Args:
        runs: A clean table.

    Returns:
        The rows that ended, with the loss NaN where a run diverged.
    """
    numbers = {name: pd.to_numeric(runs[name], errors="coerce").astype(float) for name in _CELL}
    runs = runs.assign(**numbers)
    place = [runs["compute_budget"], runs["size"].map(str), runs["num_params"]]
    checked = (runs["role"] == "check").groupby(place).transform("any")
    known = (runs[list(RECIPE)] > 0).all(axis=1) & runs["state"].isin(_ENDED)
    return runs[(checked | (runs["role"] == "pilot")) & known]


def tuned_in(cells: pd.DataFrame) -> tuple[str, ...]:
    """Which of learning rate and batch size a pilot varied, at one size and budget."""
    pilot = cells[cells["role"] == "pilot"]
    place = [pilot["compute_budget"], pilot["num_params"]]
    return tuple(name for name in RECIPE if (pilot[name].groupby(place).nunique() > 1).any())


def tokens_per_example(meta: Mapping[str, str]) -> float:
    """Units of D in an example, by which batches are counted; 1 if the metadata do not say."""
    try:
        given = float(meta.get("tokens_per_example", "1"))
    except ValueError:
        return 1.0
    return given if 0 < given < math.inf else 1.0


def find_recipe(runs: pd.DataFrame, tokens_per_example: float) -> RecipeLaw | None:
    """The recipe law of a table of runs; None where no pilot was trained, or it says nothing.

    Args:
        runs: A clean table.
        tokens_per_example: Units of D in an example.
    """
    if not (runs["role"] == "pilot").any():
        return None
    cells = recipe_cells(runs)
    tuned = tuned_in(cells)
    if not tuned:
        return None
    columns = [*_CELL, *(["seed"] if "seed" in cells else [])]
    law = fit_recipe(cells[columns], tuned=tuned, tokens_per_example=tokens_per_example)
    if law is None or "batch_size" in tuned:
        return law
    trained = runs.loc[runs["state"] == "complete", [*_CELL]].astype(float)
    C, N, D = (trained[name] for name in ("compute_budget", "num_params", "num_tokens"))
    rule = rule_of_batches(C, N, D, trained["batch_size"], tokens_per_example)
    return replace(law, batch_rule=rule)


def fit_without_excess(
    recipe: RecipeLaw, fit: ParametricFit, points: Points, runs: pd.DataFrame
) -> ParametricFit | None:
    """The headline fitted to what the best recipe would have reached; None if the fit fails.

    A run's recipe may be off in its middle, and by the error of the law, which grows away from the
    sizes of the pilot. If that costs some sizes more than others, it moves N_opt.

    Args:
        recipe: The law of the best recipe.
        fit: The headline.
        points: The runs that it was fitted to.
        runs: The same runs as a table.
    """
    if fit.space != "log":
        return None
    reduced = points.loss * np.exp(-_expected_excess(recipe, runs))
    try:
        return refit(fit, replace(points, loss=reduced))
    except (np.linalg.LinAlgError, FitError):
        return None


def _expected_excess(recipe: RecipeLaw, runs: pd.DataFrame) -> Array:
    """How far ln L of each run is expected to lie above the least possible, shape (n,)."""
    N, D, rate, batch = (
        pd.to_numeric(runs[name], errors="coerce").to_numpy(float)
        for name in ("num_params", "num_tokens", *RECIPE)
    )
    of_middle = recipe.excess(N, D, rate, batch)
    return recipe.expected_excess(N, D) + np.where(np.isfinite(of_middle), of_middle, 0.0)
