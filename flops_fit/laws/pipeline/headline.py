"""The headline: which runs count, the parametric fit through them, and how uncertain it is.

The order is: fit by Huber from many starts; screen on its residuals; refit by least squares, five
parameters and tied; hold out the largest budgets; choose the form; measure its uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.check import Check
from flops_fit.laws.fitting.parametric import (
    FEW_STARTS,
    Form,
    ParametricFit,
)
from flops_fit.laws.inference.backtest import BACKTEST_COLUMNS, backtest, choose_form
from flops_fit.laws.inference.bootstrap import measure_spread
from flops_fit.laws.inference.intervals import Quantity, Spread, hull
from flops_fit.laws.inference.outliers import excess, screen, screen_iqr
from flops_fit.laws.inference.repetition_constants import (
    joint_fit,
    joint_spread,
    widen,
)
from flops_fit.laws.inference.term_tests import check_bounds, check_terms
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.fit_data import Data, _data, refuse_parametric
from flops_fit.laws.pipeline.notes import _said_of, _said_of_errors
from flops_fit.laws.pipeline.shared_errors import sizes_share_error

MOST_DROPPED = 0.2


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
    both = options.method != "huber" and options.form != "tied"
    data = data.repeated(options.delta, both=both)
    out, fits, checks = _first_fits(data, options)
    if checks:
        options, both = replace(options, method="huber"), False
    delta = options.delta if options.method == "huber" else None
    data = data.without(out).repeated(delta, both=both)
    fits |= _refits(data, options)
    unseen = check_terms(fits["five"], data.N, data.D, data.loss)
    if unseen:
        return Headline(data, out, fits, checks=(*checks, *unseen))
    form, choice, tested = _choose(data, fits, options)
    stuck = check_bounds(fits[form])
    if stuck:
        return Headline(data, out, fits, backtest=tested, checks=(*checks, *stuck))
    unsure = form == "tied" and options.form == "auto"
    spreads = tuple(_spread(fits[f], data, options) for f in ([form, "five"] if unsure else [form]))
    checks += (*_said_of(data, fits[form], choice), *_said_of_errors(spreads[0]))
    return Headline(data, out, fits, form, choice, spreads, tested, checks)


def _choose(
    data: Data, fits: dict[str, ParametricFit], options: Options
) -> tuple[Form, str, pd.DataFrame]:
    """The form to report, why, and the back-test that says so."""
    candidates: dict[Form, ParametricFit] = {"five": fits["five"], "tied": fits["tied"]}
    tested = backtest(data.N, data.D, data.loss, data.C, candidates, tolerance=options.tolerance)
    if data.joint:
        return "five", "alpha and beta fitted apart, together with R_D* and R_N*", tested
    if options.form != "auto":
        asked = "alpha = beta" if options.form == "tied" else "alpha and beta fitted apart"
        return options.form, f"{asked}, as asked", tested
    return *choose_form(tested, fits["five"], fits["tied"]), tested


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


def _refits(data: Data, options: Options) -> dict[str, ParametricFit]:
    """The candidates for the headline: five parameters and tied, by the method asked for."""
    delta = options.delta if options.method == "huber" else None
    five, tied = data.fit("five", delta), data.fit("tied", delta, None, FEW_STARTS)
    if data.joint and data.repetition is not None:
        five = joint_fit(five, data.repetition, data.N, data.D, data.loss)
    return {"five": five, "tied": tied}


def _spread(fit: ParametricFit, data: Data, options: Options) -> Spread:
    clusters = None
    if options.shared_errors == "size":
        clusters = data.sizes
    elif options.shared_errors == "auto" and sizes_share_error(fit, data):
        clusters = data.sizes
    law, U = data.repetition, data.unique
    if data.joint and law is not None and U is not None:
        runs = data.num_params, data.num_tokens, data.loss, U
        return joint_spread(
            law, runs, clusters=clusters, num_draws=options.num_draws, seed=options.seed
        )
    spread = measure_spread(
        fit,
        data.N,
        data.D,
        data.loss,
        clusters=clusters,
        num_draws=options.num_draws,
        seed=options.seed,
    )
    if law is None or law.fading_error is None or U is None:
        return spread
    return widen(spread, fit, law, (data.N, data.num_tokens, data.loss, U), options.seed + 1)
