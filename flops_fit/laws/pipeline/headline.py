"""The headline: which runs count, the parametric fit through them, and its uncertainty.

The steps are: a Huber fit from many starts; a screen on its residuals; least-squares refits with
five parameters, tied and bent; a back-test on the largest budgets; the choice of the form; the
measurement of its uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.check import Check
from flops_fit.laws.fitting.parametric import FEW_STARTS, Form, ParametricFit, refit
from flops_fit.laws.fitting.starts import bent_starts
from flops_fit.laws.inference.backtest import BACKTEST_COLUMNS, backtest
from flops_fit.laws.inference.bootstrap import measure_spread
from flops_fit.laws.inference.form_choice import choose_form, contradicts_straight, may_bend
from flops_fit.laws.inference.intervals import Quantity, Spread, hull
from flops_fit.laws.inference.misfit import Misfit, measure_misfit
from flops_fit.laws.inference.outliers import Screened, keep_all
from flops_fit.laws.inference.repetition_constants import joint_fit, joint_spread, widen
from flops_fit.laws.inference.term_tests import check_bounds, check_terms
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.counted_runs import choose_runs
from flops_fit.laws.pipeline.fit_data import FitData, read_fit_data, refuse_parametric
from flops_fit.laws.pipeline.notes import headline_notes, warn_of_suspects, warn_of_unsettled
from flops_fit.laws.pipeline.shared_errors import sizes_share_error

AS_REQUESTED = {
    "five": "alpha and beta fitted separately",
    "tied": "alpha = beta",
    "bent": "a law that bends",
}
# R_D* by two objectives differs if it does by this many standard errors.
APART = 2.0
ROUNDING = 1e-3


@dataclass(frozen=True)
class Headline:
    """The parametric fits, the chosen one and its uncertainty.

    Attributes:
        data: The runs that count.
        screened: The finished runs that were screened out, and those suspected.
        fits: "huber" (all finished runs), "five" and "tied" (the runs that count), and "bent" where
            there are enough runs. Where the headline is bent, "huber" is too.
        form: The chosen form; None if no parametric law can be fitted.
        choice: Why it was chosen.
        spreads: Uncertainty of the chosen form; if runs are suspected, also without them; and if
            the form is tied by the back-test, also of the five-parameter form, because
            alpha = beta is itself uncertain.
        backtest: Errors on held-out budgets.
        checks: Why no law can be fitted, or what deviates from the request.
        misfit: What the law misses, and the laws that count in predictions.
    """

    data: FitData
    screened: Screened
    fits: dict[str, ParametricFit] = field(default_factory=dict)
    form: Form | None = None
    choice: str = "no parametric fit"
    spreads: tuple[Spread, ...] = ()
    backtest: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=list(BACKTEST_COLUMNS))
    )
    checks: Sequence[Check] = ()
    misfit: Misfit | None = None

    @property
    def out(self) -> np.ndarray:
        """Mask of the finished runs that were screened out, shape (runs before the screen,)."""
        return self.screened.out

    def interval(self, quantity: Quantity) -> tuple[Array, Array]:
        """95 % interval of a quantity of the law, which contains those of all spreads."""
        return hull(self.spreads, quantity)


def headline(runs: pd.DataFrame, options: Options) -> Headline:
    """Screen the runs, fit them, choose the form and measure its uncertainty.

    Args:
        runs: A clean table, as `table.read_runs` returns.
        options: How to fit.

    Raises:
        FitError: No run has finished.
    """
    data = read_fit_data(runs, options)
    refusal = refuse_parametric(data)
    try:
        if refusal is None:
            return _fit(data, options)
    except (np.linalg.LinAlgError, FitError) as error:
        advice = "Look for numbers in a wrong unit or column."
        refusal = Check("fit-failed", "refuse", f"the parametric fit failed: {error}.", advice)
    return Headline(data, keep_all(len(data.points)), checks=[refusal])


def _fit(data: FitData, options: Options) -> Headline:
    """Everything after the data have been read."""
    asked = options
    chosen = choose_runs(data, options)
    data, finished, huber, screened = chosen.data, chosen.finished, chosen.huber, chosen.screened
    options, delta, both, checks = chosen.options, chosen.delta, chosen.both, [*chosen.checks]
    fits = {"huber": huber, **_candidates(data, delta, bent=_may_bend(data, asked, both=both))}
    unseen = check_terms(fits["five"], data.points)
    if unseen:
        return Headline(data, screened, fits, checks=[*checks, *unseen])
    form, choice, tested = _choose(data, fits, options)
    if form == "bent":
        bent = bent_starts(huber.theta)
        fits["huber"] = finished.fit("bent", options.delta, starts=bent)
        data, fits["bent"] = _bend(data, fits["bent"], delta, both=both)
    data, unsettled = settle_repetition(data, finished, options.delta)
    checks += unsettled
    at_bound = check_bounds(fits[form])
    if at_bound:
        return Headline(data, screened, fits, backtest=tested, checks=[*checks, *at_bound])
    forms: list[Form] = [form]
    if form == "tied" and options.form == "auto":
        forms.append("five")
    spreads = [_spread(fits[name], data, options) for name in forms]
    checks += headline_notes(data, fits[form], choice, spreads[0])
    suspected = screened.suspected[~screened.out]
    if suspected.any():
        without = data.without(suspected)
        fit = refit(fits[form], without.points)
        spreads.insert(1, _spread(fit, without, options))
        checks.append(warn_of_suspects(data.counted.at(suspected), fits[form], fit))
    # The plain Huber fit of the papers, where it is asked for, predicts by its law alone.
    plain = asked.method == "huber"
    # With repeated data each form has effective tokens of its own: only one can count.
    average = options.form == "auto" and data.repetition is None
    misfit = None if plain else measure_misfit(fits, form, data.points, average=average)
    return Headline(data, screened, fits, form, choice, tuple(spreads), tested, checks, misfit)


def _candidates(data: FitData, delta: float | None, *, bent: bool) -> dict[str, ParametricFit]:
    """The candidates for the headline: the five-parameter and the tied fit, and the bent one."""
    five, tied = data.fit("five", delta), data.fit("tied", delta, None, FEW_STARTS)
    fits = {"five": five, "tied": tied}
    if bent:
        fits["bent"] = data.fit("bent", delta, starts=bent_starts(five.theta))
    if data.joint and data.repetition is not None:
        fits["five"] = joint_fit(five, data.repetition, data.points)
    return fits


def _may_bend(data: FitData, asked: Options, *, both: bool) -> bool:
    """Whether the bent law is a candidate.

    Args:
        data: The runs that count.
        asked: How to fit, as requested. The published Huber fit has no gamma.
        both: Whether R_N* may be fitted. If not, a bend could not be told from excess parameters
            that fade.
    """
    if asked.form != "auto":
        return asked.form == "bent"
    held = data.repetition is not None and not both
    return asked.method != "huber" and not held and may_bend(data.C, asked.tolerance)


def _bend(
    data: FitData, bent: ParametricFit, delta: float | None, *, both: bool
) -> tuple[FitData, ParametricFit]:
    """The data and the bent fit, with the constants of repeated data fitted again with gamma."""
    if data.repetition is None or data.repetition.fading_error is None:
        return data, bent
    data = data.with_repetition(delta, both=both, form="bent")
    bent = refit(bent, data.points)
    if data.joint and data.repetition is not None:
        bent = joint_fit(bent, data.repetition, data.points)
    return data, bent


def settle_repetition(
    data: FitData, finished: FitData, delta: float
) -> tuple[FitData, list[Check]]:
    """The data with the error of R_D* widened if another objective gives another R_D*.

    Args:
        data: The runs that count, with R_D* by the objective of the headline.
        finished: All finished runs, with R_D* by the Huber fit.
        delta: Huber's threshold.
    """
    if data.repetition is None or data.joint:
        return data, []
    if finished.joint:
        finished = finished.with_repetition(delta, both=False)
    law, other = data.repetition, finished.repetition
    if other is None or law.fading_error is None or other.fading_error is None:
        return data, []
    apart = abs(1 / law.r_data - 1 / other.r_data)
    # Without noise, both errors are rounding.
    if apart <= APART * np.hypot(law.fading_error, other.fading_error) + ROUNDING / law.r_data:
        return data, []
    error = float(np.hypot(law.fading_error, apart))
    return replace(data, repetition=replace(law, fading_error=error)), [
        warn_of_unsettled(law, other)
    ]


def _choose(
    data: FitData, fits: dict[str, ParametricFit], options: Options
) -> tuple[Form, str, pd.DataFrame]:
    """The form to report, the reason, and the back-test behind it."""
    candidates: dict[Form, ParametricFit] = {"five": fits["five"], "tied": fits["tied"]}
    bent = fits.get("bent")
    # A bend that the runs do not ask for needs no back-test.
    if bent is not None and (options.form == "bent" or contradicts_straight(fits["five"], bent)):
        candidates["bent"] = bent
    tested = backtest(data.points, data.C, candidates, tolerance=options.tolerance)
    if options.form != "auto":
        return options.form, f"{AS_REQUESTED[options.form]}, as requested", tested
    straight: tuple[Form, str] | None = None
    if data.joint:
        straight = "five", f"{AS_REQUESTED['five']}, jointly with R_D* and R_N*"
    return *choose_form(tested, fits, straight), tested


def _spread(fit: ParametricFit, data: FitData, options: Options) -> Spread:
    """The uncertainty of a fit, with shared errors and fitted constants of repetition."""
    share = options.shared_errors == "size" or (
        options.shared_errors == "auto" and sizes_share_error(fit, data)
    )
    clusters = data.sizes if share else None
    num_draws, seed = options.num_draws, options.seed
    law = data.repetition
    if law is not None and data.joint:
        counted = replace(data.counted, clusters=clusters)
        return joint_spread(law, counted, fit.form, num_draws=num_draws, seed=seed)
    points = replace(data.points, clusters=clusters)
    spread = measure_spread(fit, points, num_draws=num_draws, seed=seed)
    if law is None or law.fading_error is None:
        return spread
    return widen(spread, fit, law, data.counted, seed + 1)
