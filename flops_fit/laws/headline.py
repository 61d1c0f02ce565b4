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
from flops_fit.laws.checks import Check, counted
from flops_fit.laws.cost import Cost, measure_cost
from flops_fit.laws.effective import (
    check_parameters,
    joint_fit,
    joint_spread,
    measure_repetition,
    unique_tokens,
    widen,
)
from flops_fit.laws.options import Options
from flops_fit.laws.outliers import excess, screen, screen_iqr
from flops_fit.laws.parametric import (
    FEW_STARTS,
    MANY_STARTS,
    Form,
    ParametricFit,
    fit_parametric,
)
from flops_fit.laws.repetition import RepetitionLaw, effective_tokens
from flops_fit.laws.signal import check_bounds, check_terms
from flops_fit.laws.solver import Array, Space
from flops_fit.laws.uncertainty import STEP, Quantity, Spread, measure_spread

LEAST_RUNS = 8
MOST_DROPPED = 0.2
WIDEST_LOSS, LARGEST_LOSS = 1e4, 1e100


@dataclass(frozen=True)
class Data:
    """Columns of the runs that are fitted, shape (n,) each, and how they are fitted.

    Attributes:
        N: Parameters as the law sees them: effective ones, where excess parameters fade.
        D: Tokens as the law sees them: effective ones, where data was repeated.
        loss: Loss.
        C: Budgets, FLOPs.
        sizes: A label for each size.
        cost: FLOPs per token.
        space: Residuals of ln L or of L.
        num_params: Parameters as counted.
        num_tokens: Tokens as read.
        unique: Unique tokens among them; None where none was read twice.
        repetition: The data-constrained law behind D; None where tokens count as read.
        given: Whether unique tokens were recorded, and not epochs alone.
    """

    N: Array
    D: Array
    loss: Array
    C: Array
    sizes: np.ndarray
    cost: Cost
    space: Space
    num_params: Array
    num_tokens: Array
    unique: Array | None = None
    repetition: RepetitionLaw | None = None
    given: bool = False

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
        names = ("N", "D", "loss", "C", "sizes", "num_params", "num_tokens")
        kept = {name: getattr(self, name)[~out] for name in names}
        return replace(self, unique=None if self.unique is None else self.unique[~out], **kept)

    @property
    def joint(self) -> bool:
        """Whether the law was fitted with both constants of repetition at once."""
        return self.repetition is not None and self.repetition.params_error is not None

    def repeated(self, delta: float | None, *, both: bool) -> Data:
        """The same in what counts, where runs saw their data more than once.

        Args:
            delta: Huber's threshold; None for least squares.
            both: Whether R_N* may be fitted, and not R_D* alone.
        """
        N, D, U = self.num_params, self.num_tokens, self.unique
        if U is None:
            return self
        plain = replace(self, N=N, D=effective_tokens(D, U))
        start = plain.fit("five", delta, None, FEW_STARTS).law
        law = None
        if self.space == "log":
            law = measure_repetition(N, D, self.loss, U, start, delta, both=both)
        if law is None and self.given:
            law = RepetitionLaw(start)
        if law is None:
            return replace(self, N=N, D=D, repetition=None)
        D = effective_tokens(D, U, law.r_data)
        if law.params_error is not None:
            N = law.effective_params(N, self.num_tokens, U)
        return replace(self, N=N, D=D, repetition=law)


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


def refuse_parametric(data: Data) -> Check | None:
    """Why no parametric law may be fitted to these runs; None where one may."""
    n = len(data.loss)
    if n < LEAST_RUNS:
        return Check(
            "too-few-runs",
            "refuse",
            f"{counted(n, 'finished run')}: the parametric law needs {LEAST_RUNS}.",
            "Add budgets or sizes.",
        )
    x, y, loss = np.log(data.N), np.log(data.D), np.abs(data.loss)
    spread = loss.max() < WIDEST_LOSS * loss[loss > 0].min(initial=np.inf)
    if not spread or loss.max() > LARGEST_LOSS:
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
        reasons = "; ".join(f"{n} {why}" for why, n in runs["excluded"].value_counts().items())
        raise FitError(f"all {len(runs)} runs are left out of the fit: {reasons}")
    N, D, loss, C, flops = (
        good[name].to_numpy(float)
        for name in ("num_params", "num_tokens", "loss", "compute_budget", "flops")
    )
    positive = bool((loss > 0).all())
    space: Space = "log" if positive and options.method != "linear" else "linear"
    cost = measure_cost(N, D, flops)
    unique = unique_tokens(good)
    given = "unique_tokens" in good
    return Data(N, D, loss, C, _size_labels(good), cost, space, N, D, unique, given=given)


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
    law = data.repetition
    if law is not None:
        said.append(_said_of_repetition(law))
        assert data.unique is not None
        said += check_parameters(law, data.num_params, data.num_tokens, data.loss, data.unique)
    return tuple(said)


def _said_of_repetition(law: RepetitionLaw) -> Check:
    fitted = law.fading_error is not None
    whence = "fitted to these runs" if fitted else "of Muennighoff et al. 2023, not fitted"
    message = f"the law holds in effective tokens, R_D* = {law.r_data:.4g} ({whence}); "
    if law.params_error is None:
        message += "parameters count in full."
    else:
        message += f"and in effective parameters, R_N* = {law.r_params:.4g} (fitted too)."
    return Check("effective-tokens", "note", message)


def _said_of_errors(spread: Spread) -> list[Check]:
    """That runs share errors, where the intervals allow for it."""
    if "cluster" not in spread.draws:
        return []
    message = (
        f"runs of one size are taken to share an error ({spread.num_clusters} sizes): intervals "
        "are wider for it."
    )
    advice = "A learning rate that suits some sizes only does this; see shared_errors."
    return [Check("shared-errors", "note", message, advice)]


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


def hull(
    spreads: tuple[Spread, ...], quantity: Quantity, step: float = STEP
) -> tuple[Array, Array]:
    """The interval that holds those of all spreads."""
    ends = [spread.interval(quantity, step=step) for spread in spreads]
    low, high = np.stack([e[0] for e in ends]), np.stack([e[1] for e in ends])
    return low.min(axis=0), high.max(axis=0)
