"""Which form a metric is forecast by, chosen by back-test: the largest budgets are held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flops_fit.laws.metrics.forms import Form, Places
from flops_fit.laws.metrics.posterior import Limits, Posterior, fit_form
from flops_fit.laws.model.arrays import Array

# A form whose held-out error is twice that of the best counts a sixteenth of it.
SHARPNESS = 4.0
IN_SAMPLE = 8.0  # the same of its scatter about the runs that it is fitted to
LEAST_SHARE = 0.05
LEAST_TRAIN = 8
MUCH = 0.1  # of the range of the runs
SAME_BUDGET = 0.2  # in ln C
BACKTEST_COLUMNS = (
    "form",
    "log_beyond",
    "num_train",
    "num_held_out",
    "rmse",
    "bias",
    "expected",
    "drift",
)


@dataclass(frozen=True)
class Cut:
    """One back-test.

    Attributes:
        train: Which runs are fitted, shape (n,).
        places: Where all runs are, with the loss that the law fitted to `train` forecasts for them.
    """

    train: np.ndarray
    places: Places


@dataclass(frozen=True)
class Chosen:
    """The forms that count, the chosen one first.

    Attributes:
        fitted: The fits to all runs.
        shares: How much each counts.
        drift: What the chosen form misses of the changes beyond the runs, as a share of them.
        table: The back-tests.
        missed: Whether the chosen form, fitted without the largest budget, missed there more than
            the whole change that it forecast.
    """

    fitted: tuple[Posterior, ...]
    shares: tuple[float, ...]
    drift: float
    table: pd.DataFrame
    missed: bool = False


def choose(
    forms: Callable[[Places], Sequence[Form]],
    places: Places,
    values: Array,
    limits: Limits,
    cuts: Sequence[Cut],
) -> Chosen | None:
    """Fit every form, and choose by back-test.

    Args:
        forms: The candidates, for runs at these places.
        places: Where the runs are, with their own losses, shape (n,).
        values: Their metric.
        limits: Bounds and direction of the metric.
        cuts: The back-tests.

    Returns:
        None if no form can be fitted.
    """
    fitted = [fit_form(form, places, values, limits) for form in forms(places)]
    whole = {fit.form.name: fit for fit in fitted if fit is not None}
    if not whole:
        return None
    rows = [row for cut in cuts for row in _hold_out(forms, places, values, limits, cut)]
    table = pd.DataFrame(rows, columns=list(BACKTEST_COLUMNS))
    shares = _shares(whole, table)
    kept = sorted(shares, key=lambda name: -shares[name])
    best = table[table["form"] == kept[0]]
    missed = best[(best["drift"] > 1) & (best["bias"].abs() > MUCH * np.ptp(values))]
    return Chosen(
        tuple(whole[name] for name in kept),
        tuple(shares[name] for name in kept),
        float(np.sqrt(best["drift"].clip(upper=1.0).mean())) if len(best) else 0.0,
        table,
        missed=bool(len(missed)) and missed.index[0] == best.index[0],
    )


def _shares(fitted: Mapping[str, Posterior], table: pd.DataFrame) -> dict[str, float]:
    """How much each form counts, by its errors on the held-out runs and its scatter on the rest.

    No form is held to less than the scatter of the best. One that could not be tested counts as
    the worst of those that were.
    """
    least = max(min(fit.scatter for fit in fitted.values()), 1e-12)
    squares = table["rmse"].clip(lower=least) ** 2
    errors = {form: np.sqrt(part.mean()) for form, part in squares.groupby(table["form"])}
    worst = max(errors.values(), default=least)
    raw = {
        name: (least / max(fit.scatter, least)) ** IN_SAMPLE
        * (least / errors.get(name, worst)) ** SHARPNESS
        for name, fit in fitted.items()
    }
    total = sum(raw.values())
    raw = {name: share for name, share in raw.items() if share > LEAST_SHARE * total}
    return {name: share / sum(raw.values()) for name, share in raw.items()}


def _hold_out(
    forms: Callable[[Places], Sequence[Form]],
    places: Places,
    values: Array,
    limits: Limits,
    cut: Cut,
) -> list[dict[str, object]]:
    train, held = cut.train, ~cut.train
    rows = []
    if train.sum() < LEAST_TRAIN or not held.any():
        return []
    at = cut.places.at(held)
    log_C = places.log_compute
    beyond = float(np.mean(log_C[held]) - log_C[train].max())
    last = train & (log_C > log_C[train].max() - SAME_BUDGET)
    for form in forms(places.at(train)):
        fit = fit_form(form, places.at(train), values[train], limits)
        if fit is None:
            continue
        predicted = form.values(fit.draws, at)
        error = np.median(predicted, axis=0) - values[held]
        bias, sd = float(error.mean()), float(predicted.mean(axis=1).std())
        expected = sd**2 + fit.scatter**2 / held.sum()
        change = float(predicted.mean() - values[last].mean())
        rows.append(
            {
                "form": form.name,
                "log_beyond": beyond,
                "num_train": int(train.sum()),
                "num_held_out": int(held.sum()),
                "rmse": float(np.sqrt((error**2).mean())),
                "bias": bias,
                "expected": float(np.sqrt(expected)),
                "drift": max(bias**2 - expected, 0.0) / max(change**2, expected, 1e-300),
            }
        )
    return rows
