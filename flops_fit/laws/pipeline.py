"""From a clean table of runs to everything that is known from it.

The parametric fit is the headline; the other objectives, the IsoFLOP curves and the envelope are
its witnesses; the checks say where they disagree, and what else is doubtful.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from flops_fit.laws.checks import Check, run_checks
from flops_fit.laws.cost import Cost
from flops_fit.laws.headline import Data, Headline, headline, hull
from flops_fit.laws.isoflop import fit_isoflop, fit_power_laws
from flops_fit.laws.options import Options
from flops_fit.laws.parametric import FEW_STARTS, ParametricFit, ParametricLaw
from flops_fit.laws.power import PowerLaws
from flops_fit.laws.solver import Array, Space
from flops_fit.laws.uncertainty import Quantity, Spread


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


def analyse(runs: pd.DataFrame, options: Options | None = None) -> Findings:
    """Fit everything.

    Args:
        runs: A clean table, as `table.read_runs` gives.
        options: How to fit.

    Raises:
        FitError: No run has finished.
    """
    options = options or Options()
    found = headline(runs, options)
    data, fits = found.data, dict(found.fits)
    if found.form:
        fits |= {**_witnesses(data), "headline": fits[found.form]}
    optima = fit_isoflop(
        data.C,
        data.N,
        data.loss,
        curve=options.curve,
        cost=data.cost,
        tolerance=options.tolerance,
    )
    findings = Findings(
        runs=_exclude(runs, found.out),
        optima=optima,
        law=fits["headline"].law if found.form else None,
        power_laws=fit_power_laws(optima),
        fits=fits,
        spreads=found.spreads,
        intervals=parameter_table(fits.get("headline"), found.spreads),
        checks=[],
        backtest=found.backtest,
        cost=data.cost,
        choice=found.choice,
    )
    return replace(findings, checks=_checks(findings, found))


def _checks(findings: Findings, found: Headline) -> list[Check]:
    refusal = [found.refusal] if found.refusal else []
    return [*refusal, *run_checks(findings, found.data)]


def _exclude(runs: pd.DataFrame, out: np.ndarray) -> pd.DataFrame:
    """Write the reason on the runs left out."""
    runs = runs.copy()
    standing = runs.index[runs["excluded"] == ""]
    runs.loc[standing[out], "excluded"] = "outlier: loss far above the law"
    return runs


def _witnesses(data: Data) -> dict[str, ParametricFit]:
    """The law by other objectives, on the runs that are left."""
    spaces: tuple[Space, ...] = ("linear", "log") if data.space == "log" else ("linear",)
    return {space: data.fit("five", None, space, FEW_STARTS) for space in spaces}


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
