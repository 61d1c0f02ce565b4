"""The headline: which runs count, the parametric fit through them, and how uncertain it is.

The order is: fit by Huber from many starts; screen on its residuals; refit by least squares, five
parameters and tied; hold out the largest budgets; choose the form; measure its uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy import stats

from flops_fit.errors import FitError
from flops_fit.laws.backtest import BACKTEST_COLUMNS, backtest, choose_form
from flops_fit.laws.checks import Check
from flops_fit.laws.cost import Cost, measure_cost
from flops_fit.laws.exclude import epochs
from flops_fit.laws.options import Options
from flops_fit.laws.outliers import excess, screen, screen_iqr
from flops_fit.laws.parametric import (
    FEW_STARTS,
    MANY_STARTS,
    Form,
    ParametricFit,
    fit_parametric,
)
from flops_fit.laws.repetition import R_DATA, effective_tokens
from flops_fit.laws.signal import check_terms
from flops_fit.laws.solver import Array, Space
from flops_fit.laws.uncertainty import Quantity, Spread, measure_spread

LEAST_RUNS = 8
MOST_DROPPED = 0.2
WIDEST_LOSS = 1e4


@dataclass(frozen=True)
class Data:
    """Columns of the runs that are fitted, shape (n,) each, and how they are fitted."""

    N: Array
    D: Array
    loss: Array
    C: Array
    sizes: np.ndarray
    cost: Cost
    space: Space
    r_data: float = float("nan")

    def fit(
        self,
        form: Form,
        delta: float | None,
        space: Space | None = None,
        most_starts: int = MANY_STARTS,
    ) -> ParametricFit:
        """The parametric law through these runs."""
        return fit_parametric(
            self.N,
            self.D,
            self.loss,
            form=form,
            space=space or self.space,
            delta=delta,
            cost=self.cost,
            most_starts=most_starts,
        )

    def without(self, out: np.ndarray) -> Data:
        """The same, less some runs."""
        keep = ~out
        N, D, loss, C = (part[keep] for part in (self.N, self.D, self.loss, self.C))
        return Data(N, D, loss, C, self.sizes[keep], self.cost, self.space, self.r_data)


@dataclass(frozen=True)
class Headline:
    """The parametric fits, the one chosen, and its uncertainty.

    Attributes:
        data: The runs that count.
        out: Which of the finished runs were screened out, shape (runs before the screen,).
        fits: "huber" (all finished runs), "five" and "tied" (the runs that count).
        form: The form chosen; None where no parametric law may be fitted.
        choice: Why.
        spreads: Uncertainty of the chosen form, and of five parameters where tied was chosen: that
            alpha = beta is itself uncertain.
        backtest: Errors on held-out budgets.
        checks: Why no law may be fitted, where none may; and what was done otherwise than asked.
    """

    data: Data
    out: np.ndarray
    fits: dict[str, ParametricFit] = field(default_factory=dict)
    form: Form | None = None
    choice: str = "no parametric fit"
    spreads: tuple[Spread, ...] = ()
    backtest: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=list(BACKTEST_COLUMNS))
    )
    checks: tuple[Check, ...] = ()

    def interval(self, quantity: Quantity) -> tuple[Array, Array]:
        """95 % interval of a quantity of the law: it holds those of all spreads."""
        return hull(self.spreads, quantity)


def headline(runs: pd.DataFrame, options: Options) -> Headline:
    """Screen, fit, choose and measure.

    Args:
        runs: A clean table, as `table.read_runs` gives.
        options: How to fit.

    Raises:
        FitError: No run has finished.
    """
    data = _data(runs, options)
    refusal = refuse_parametric(data)
    try:
        if refusal is None:
            return _fit(data, options)
    except (np.linalg.LinAlgError, FitError) as error:
        advice = "Look for numbers in a wrong unit or column."
        refusal = Check("fit-failed", "refuse", f"the parametric fit broke down: {error}.", advice)
    return Headline(data, np.zeros(len(data.loss), bool), checks=(refusal,))


def _fit(data: Data, options: Options) -> Headline:
    """Everything after the reading of the data."""
    out, fits, checks = _first_fits(data, options)
    if checks:
        options = replace(options, method="huber")
    data = data.without(out)
    fits |= _refits(data, options)
    unseen = check_terms(fits["five"], data.N, data.D, data.loss)
    if unseen:
        return Headline(data, out, fits, checks=(*checks, *unseen))
    candidates: dict[Form, ParametricFit] = {"five": fits["five"], "tied": fits["tied"]}
    tested = backtest(data.N, data.D, data.loss, data.C, candidates, tolerance=options.tolerance)
    form, choice = choose_form(tested, fits["five"], fits["tied"])
    if options.form != "auto":
        form, choice = options.form, "as asked"
    forms: tuple[Form, ...] = ("tied", "five") if form == "tied" else ("five",)
    if options.form == "tied":
        forms = ("tied",)
    spreads = tuple(_spread(fits[f], data, options) for f in forms)
    checks += _said_of(data, fits[form], choice)
    return Headline(data, out, fits, form, choice, spreads, tested, checks)


def refuse_parametric(data: Data) -> Check | None:
    """Why no parametric law may be fitted to these runs; None where one may."""
    n = len(data.loss)
    if n < LEAST_RUNS:
        return Check(
            "too-few-runs",
            "refuse",
            f"{n} finished runs; the parametric law needs {LEAST_RUNS}.",
            "Add budgets or sizes.",
        )
    x, y, loss = np.log(data.N), np.log(data.D), np.abs(data.loss)
    if not loss.max() < WIDEST_LOSS * loss[loss > 0].min(initial=np.inf):
        return Check(
            "odd-losses",
            "refuse",
            f"losses from {data.loss.min():.3g} to {data.loss.max():.3g}: no law fits them all.",
            "Look for diverged runs, and for losses in different units.",
        )
    if min(np.ptp(x), np.ptp(y)) < 0.05 or np.ptp(y - x) < 0.05:
        return Check(
            "one-direction",
            "refuse",
            "all runs have one N, one D or one D / N: the law's terms cannot be told apart.",
            "Train several sizes at each budget.",
        )
    return None


def _data(runs: pd.DataFrame, options: Options) -> Data:
    good = runs[runs["excluded"] == ""]
    if good.empty:
        raise FitError("expected finished runs with a finite loss, got none")
    N, D, loss, C, flops = (
        good[name].to_numpy(float)
        for name in ("num_params", "num_tokens", "loss", "compute_budget", "flops")
    )
    positive = bool((loss > 0).all())
    space: Space = "log" if positive and options.method != "linear" else "linear"
    cost = measure_cost(N, D, flops)
    effective, r_data = _effective(good)
    return Data(N, effective, loss, C, _size_labels(good), cost, space, r_data)


def _effective(good: pd.DataFrame) -> tuple[Array, float]:
    """Tokens as the law sees them: less than were read, where some were read again."""
    D = good["num_tokens"].to_numpy(float)
    if "unique_tokens" not in good or not (epochs(good) > 1).any():
        return D, float("nan")
    return effective_tokens(D, good["unique_tokens"].to_numpy(float)), R_DATA


def _size_labels(good: pd.DataFrame) -> np.ndarray:
    """One label a size: the size where recorded, else N to one part in a thousand."""
    if good["size"].notna().all():
        return np.unique(good["size"].astype(str), return_inverse=True)[1]
    return np.unique(np.round(np.log(good["num_params"].to_numpy(float)), 3), return_inverse=True)[
        1
    ]


def _first_fits(
    data: Data, options: Options
) -> tuple[np.ndarray, dict[str, ParametricFit], tuple[Check, ...]]:
    """Runs to leave out, the Huber fit of all runs that says so, and a refusal to drop so many."""
    huber = data.fit("five", options.delta)
    out = np.zeros(len(data.loss), bool)
    if options.outliers == "iqr":
        out = screen_iqr(excess(huber, data.N, data.D, data.loss))
    elif options.outliers == "residuals" and options.method == "screened":
        out = screen(huber, data.N, data.D, data.loss)
    if out.mean() <= MOST_DROPPED:
        return out, {"huber": huber}, ()
    refusal = Check(
        "screen-refused",
        "refuse",
        f"the screen would leave out {int(out.sum())} of {len(out)} runs: none was left out, and "
        "the law is the plain Huber fit.",
        "So many are a sign that the law does not hold for all runs.",
    )
    return np.zeros(len(out), bool), {"huber": huber}, (refusal,)


def _said_of(data: Data, fit: ParametricFit, choice: str) -> tuple[Check, ...]:
    """What is said for the record: the form chosen, and effective tokens."""
    said = [Check("form", "note", f"{choice}.")] if fit.form == "tied" else []
    if np.isfinite(data.r_data):
        message = (
            f"the law holds in effective tokens: repeated data fades with R_D* = {data.r_data}"
        )
        said.append(Check("effective-tokens", "note", f"{message} (Muennighoff et al. 2023)."))
    return tuple(said)


def _refits(data: Data, options: Options) -> dict[str, ParametricFit]:
    """The candidates for the headline: five parameters and tied, by the method asked for."""
    delta = options.delta if options.method == "huber" else None
    return {"five": data.fit("five", delta), "tied": data.fit("tied", delta, None, FEW_STARTS)}


def _spread(fit: ParametricFit, data: Data, options: Options) -> Spread:
    clusters = None
    if options.shared_errors == "size":
        clusters = data.sizes
    elif options.shared_errors == "auto" and sizes_share_error(fit, data):
        clusters = data.sizes
    return measure_spread(
        fit,
        data.N,
        data.D,
        data.loss,
        clusters=clusters,
        num_draws=options.num_draws,
        seed=options.seed,
    )


def sizes_share_error(fit: ParametricFit, data: Data) -> bool:
    """Whether residuals of one size are alike (analysis of variance, p < .01)."""
    r = excess(fit, data.N, data.D, data.loss)
    labels, index, counts = np.unique(data.sizes, return_inverse=True, return_counts=True)
    k, free = len(labels), len(r) - len(labels) - fit.num_free
    if k < 3 or free < 3 or (counts > 1).sum() < 3 or fit.residual_std < 1e-9:
        return False
    means = np.bincount(index, r) / counts
    between = float((counts * means**2).sum()) / (k - 1)
    within = float(((r - means[index]) ** 2).sum()) / free
    return between / max(within, 1e-300) > float(stats.f.ppf(0.99, k - 1, free))


def hull(spreads: tuple[Spread, ...], quantity: Quantity) -> tuple[Array, Array]:
    """The interval that holds those of all spreads."""
    ends = [spread.interval(quantity) for spread in spreads]
    low, high = np.stack([e[0] for e in ends]), np.stack([e[1] for e in ends])
    return low.min(axis=0), high.max(axis=0)
