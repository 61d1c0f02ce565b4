"""From a clean table of runs to everything that is known from it.

The order is: leave out what did not finish; fit by Huber from many starts; screen on its residuals;
refit by least squares, five parameters and tied; measure intervals; hold out the largest budgets;
choose the form; draw the IsoFLOP curves and the envelope as witnesses; check all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.backtest import BACKTEST_COLUMNS, backtest, choose_form
from flops_fit.laws.checks import Check, run_checks
from flops_fit.laws.cost import Cost, measure_cost
from flops_fit.laws.isoflop import Curve, fit_isoflop, fit_power_laws
from flops_fit.laws.outliers import excess, screen, screen_iqr
from flops_fit.laws.parametric import Form, ParametricFit, ParametricLaw, fit_parametric
from flops_fit.laws.power import PowerLaws
from flops_fit.laws.solver import Array, Space
from flops_fit.laws.uncertainty import Quantity, Spread, measure_spread, pairs_spread

Method = Literal["screened", "huber", "log", "linear"]

PAPERS_DELTA = 1e-3
LEAST_RUNS = 8
MOST_DROPPED = 0.2
LEAST_DRAWS = 100
CHOICES: dict[str, tuple[str, ...]] = {
    "method": ("screened", "huber", "log", "linear"),
    "form": ("auto", "five", "tied"),
    "curve": ("parabola", "cubic"),
    "outliers": ("residuals", "iqr", "keep"),
    "shared_errors": ("auto", "size", "none"),
}


@dataclass(frozen=True)
class Options:
    """How to fit.

    Attributes:
        method: "screened": Huber, screen, least squares of ln L. "huber": plain Huber. "log" and
            "linear": least squares of ln L, or of L, of all finished runs.
        delta: Huber's threshold on residuals of ln L.
        form: "five" parameters, "tied" with alpha = beta, or "auto": by back-test.
        curve: IsoFLOP curve: "parabola", or "cubic" for budgets of seven runs or more.
        outliers: "residuals": the screen of `method`; "iqr": Tukey's fence instead; "keep": none.
        shared_errors: "auto": by test; "size": runs of one size share an error; "none".
        tolerance: Budgets this close (relative) are one.
        num_draws: Bootstrap refits.
        seed: Seed of the bootstrap.
    """

    method: Method = "screened"
    delta: float = PAPERS_DELTA
    form: Literal["auto", "five", "tied"] = "auto"
    curve: Curve = "parabola"
    outliers: Literal["residuals", "iqr", "keep"] = "residuals"
    shared_errors: Literal["auto", "size", "none"] = "auto"
    tolerance: float = 0.1
    num_draws: int = 600
    seed: int = 0

    def require_sound(self) -> None:
        """Raise ArgumentError with every option that cannot work."""
        faults = [
            f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}"
            for name, known in CHOICES.items()
            if getattr(self, name) not in known
        ]
        for name, low in (("delta", 0.0), ("tolerance", 0.0), ("num_draws", LEAST_DRAWS - 1)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not low < value < np.inf:
                faults.append(f"{name}: expected a finite number above {low:g}, got {value!r}")
        if faults:
            raise ArgumentError(faults)


@dataclass(frozen=True)
class Findings:
    """Everything the laws say about one table of runs.

    Attributes:
        runs: A row a run; `excluded` says why a run took no part.
        optima: A row a budget, from the IsoFLOP curves.
        law: The headline law; None where no parametric fit stands.
        power_laws: Through the optima.
        fits: Every parametric fit made, by name; "headline" names the one `law` is from.
        spreads: Uncertainty of the headline, and of the five-parameter fit where tied was chosen.
        intervals: A row a parameter (E, A, B, alpha, beta, a): value, low, high, standard_error.
        checks: What is doubtful.
        backtest: Errors on held-out budgets.
        cost: FLOPs per token.
        choice: Which form the headline has, and why.
    """

    runs: pd.DataFrame
    optima: pd.DataFrame
    law: ParametricLaw | None
    power_laws: PowerLaws
    fits: dict[str, ParametricFit]
    spreads: tuple[Spread, ...]
    intervals: pd.DataFrame
    checks: list[Check]
    backtest: pd.DataFrame
    cost: Cost
    choice: str = ""

    def interval(self, quantity: Quantity) -> tuple[Array, Array]:
        """95 % interval: the headline's, widened to hold the five-parameter fit's."""
        return hull(self.spreads, quantity)

    def noise_around(self, low: Array, high: Array, k: int) -> Array:
        """What one run's own noise adds to half an interval of the last k losses, shape (k,)."""
        spread = self.spreads[0]
        reach = float(stats.t.ppf(0.975, max(spread.dof, 1)))
        half, level = (high[-k:] - low[-k:]) / 2, np.abs(high[-k:] + low[-k:]) / 2
        return np.hypot(half, reach * spread.residual_std * level) - half


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

    def fit(self, form: Form, delta: float | None, space: Space | None = None) -> ParametricFit:
        """The parametric law through these runs."""
        return fit_parametric(
            self.N,
            self.D,
            self.loss,
            form=form,
            space=space or self.space,
            delta=delta,
            cost=self.cost,
        )

    def without(self, out: np.ndarray) -> Data:
        """The same, less some runs."""
        keep = ~out
        N, D, loss, C = (part[keep] for part in (self.N, self.D, self.loss, self.C))
        return Data(N, D, loss, C, self.sizes[keep], self.cost, self.space)


def analyse(runs: pd.DataFrame, options: Options | None = None) -> Findings:
    """Fit everything.

    Args:
        runs: A clean table, as `table.read_runs` gives.
        options: How to fit.

    Raises:
        FitError: No run has finished.
    """
    options = options or Options()
    data = _data(runs, options)
    refusal = refuse_parametric(data)
    checks = [refusal] if refusal else []
    fits: dict[str, ParametricFit] = {}
    if not refusal:
        out, fits = _first_fits(data, options)
        runs, kept = _exclude(runs, out), data.without(out)
        fits |= _witnesses(kept)
        fits |= _refits(kept, options)
        data = kept
    tested, spreads, form, choice = _judge(data, fits, options)
    if form:
        fits["headline"] = fits[form]
    optima = fit_isoflop(
        data.C,
        data.N,
        data.loss,
        curve=options.curve,
        cost=data.cost,
        tolerance=options.tolerance,
    )
    findings = Findings(
        runs=runs,
        optima=optima,
        law=fits[form].law if form else None,
        power_laws=fit_power_laws(optima),
        fits=fits,
        spreads=spreads,
        intervals=parameter_table(fits.get("headline"), spreads),
        checks=checks,
        backtest=tested,
        cost=data.cost,
        choice=choice,
    )
    return replace(findings, checks=[*checks, *run_checks(findings, data)])


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
    x, y = np.log(data.N), np.log(data.D)
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
    return Data(N, D, loss, C, _size_labels(good), measure_cost(N, D, flops), space)


def _size_labels(good: pd.DataFrame) -> np.ndarray:
    """One label a size: the size where recorded, else N to one part in a thousand."""
    if good["size"].notna().all():
        return np.unique(good["size"].astype(str), return_inverse=True)[1]
    return np.unique(np.round(np.log(good["num_params"].to_numpy(float)), 3), return_inverse=True)[
        1
    ]


def _first_fits(data: Data, options: Options) -> tuple[np.ndarray, dict[str, ParametricFit]]:
    """Runs to leave out, and the Huber fit of all of them that says so."""
    huber = data.fit("five", options.delta)
    out = np.zeros(len(data.loss), bool)
    if options.outliers == "iqr":
        out = screen_iqr(excess(huber, data.N, data.D, data.loss))
    elif options.outliers == "residuals" and options.method == "screened":
        out = screen(huber, data.N, data.D, data.loss)
    return out, {"huber": huber}


def _exclude(runs: pd.DataFrame, out: np.ndarray) -> pd.DataFrame:
    """Write the reason on the runs left out."""
    runs = runs.copy()
    standing = runs.index[runs["excluded"] == ""]
    runs.loc[standing[out], "excluded"] = "outlier: loss far above the law"
    return runs


def _witnesses(data: Data) -> dict[str, ParametricFit]:
    """The law by other objectives, on the runs that are left."""
    fits = {"linear": data.fit("five", None, "linear")}
    if data.space == "log":
        fits["log"] = data.fit("five", None)
    return fits


def _refits(data: Data, options: Options) -> dict[str, ParametricFit]:
    """The candidates for the headline: five parameters and tied, by the method asked for."""
    delta = options.delta if options.method == "huber" else None
    return {"five": data.fit("five", delta), "tied": data.fit("tied", delta)}


def _judge(
    data: Data, fits: dict[str, ParametricFit], options: Options
) -> tuple[pd.DataFrame, tuple[Spread, ...], Form | None, str]:
    """Back-test, uncertainty, and the form chosen."""
    if "five" not in fits:
        return pd.DataFrame(columns=list(BACKTEST_COLUMNS)), (), None, "no parametric fit"
    tested = backtest(
        data.N,
        data.D,
        data.loss,
        data.C,
        data.cost,
        space=data.space,
        delta=fits["five"].delta,
        tolerance=options.tolerance,
    )
    five = _spread(fits["five"], data, options)
    form, choice = choose_form(tested, fits["five"], fits["tied"])
    if options.form != "auto":
        form, choice = options.form, "as asked"
    spreads = (five,) if form == "five" else (_spread(fits["tied"], data, options), five)
    if options.form == "tied":
        spreads = spreads[:1]
    return tested, spreads, form, choice


def _spread(fit: ParametricFit, data: Data, options: Options) -> Spread:
    clusters = None
    if options.shared_errors == "size":
        clusters = data.sizes
    elif options.shared_errors == "auto" and sizes_share_error(fit, data):
        clusters = data.sizes
    measure = measure_spread if fit.delta is None else pairs_spread
    return measure(
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


def parameters(laws: Array) -> Array:
    """E, ln A, ln B, alpha, beta and a of each law, shape (S, 6)."""
    a = laws[:, 4:5] / (laws[:, 3:4] + laws[:, 4:5])
    return np.hstack([laws, a])


def parameter_table(fit: ParametricFit | None, spreads: tuple[Spread, ...]) -> pd.DataFrame:
    """Value, 95 % interval and standard error of E, A, B, alpha, beta and a."""
    names = ["E", "A", "B", "alpha", "beta", "a"]
    columns = ["value", "low", "high", "standard_error"]
    if fit is None or not spreads:
        return pd.DataFrame(np.nan, index=names, columns=columns)
    low, high = hull(spreads, parameters)
    law = fit.law
    value = np.array([law.E, law.A, law.B, law.alpha, law.beta, law.a])
    error = spreads[-1].standard_error(parameters)
    with np.errstate(over="ignore"):
        low[1:3], high[1:3], error[1:3] = (
            np.exp(low[1:3]),
            np.exp(high[1:3]),
            error[1:3] * value[1:3],
        )
    low[0] = max(low[0], 0.0)
    return pd.DataFrame(np.stack([value, low, high, error], axis=1), names, columns)


def hull(spreads: tuple[Spread, ...], quantity: Quantity) -> tuple[Array, Array]:
    """The interval that holds those of all spreads."""
    ends = [spread.interval(quantity) for spread in spreads]
    low, high = np.stack([e[0] for e in ends]), np.stack([e[1] for e in ends])
    return low.min(axis=0), high.max(axis=0)
