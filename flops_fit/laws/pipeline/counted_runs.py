"""Which runs count: those that laws and IsoFLOP curves are fitted to, and why others do not.

The result of a sweep, and what is said of its rows while it trains, follow this choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.check import Check
from flops_fit.laws.fitting.parametric import ParametricFit
from flops_fit.laws.inference.outliers import Screened, keep_all, screen, screen_iqr
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.fit_data import FitData, read_fit_data, refuse_parametric
from flops_fit.laws.runs.exclusions import MOST_EPOCHS, epochs, exclude_bad, exclude_repeated

# A screen that would drop more than this share of the runs is refused.
MOST_DROPPED = 0.2


@dataclass(frozen=True)
class Counted:
    """The runs that count, and what they were chosen by.

    Attributes:
        data: The runs that count.
        finished: All finished runs.
        huber: The Huber fit through all finished runs.
        screened: The finished runs that were screened out, and those suspected.
        options: How to fit; by plain Huber fits if the screen was refused.
        delta: Huber's threshold of the fits that follow; None for least squares.
        both: Whether R_N* may be fitted.
        checks: Why the screen was refused, if it was.
    """

    data: FitData
    finished: FitData
    huber: ParametricFit
    screened: Screened
    options: Options
    delta: float | None
    both: bool
    checks: list[Check]


def choose_runs(data: FitData, options: Options) -> Counted:
    """Screen finished runs, and count their tokens by a law of repeated data where there is one."""
    # R_N* is fitted by least squares jointly with five free parameters, or not at all.
    both = options.method != "huber" and options.form != "tied"
    finished = data.with_repetition(options.delta, both=both)
    huber = finished.fit("five", options.delta)
    screened, checks = _screen(huber, finished, options)
    if checks:
        # With so many apparent outliers, least squares would follow them.
        options, both = replace(options, method="huber"), False
    delta = options.delta if options.method == "huber" else None
    data = finished.without(screened.out).with_repetition(delta, both=both)
    return Counted(data, finished, huber, screened, options, delta, both, checks)


def which_count(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, with a reason in the column `excluded` on those that the result leaves out.

    Args:
        runs: A clean table, as `table.read_runs` returns, which need not be complete.
    """
    runs = exclude_bad(runs)
    data, side = _chosen(runs)
    if sees_data_too_often(runs, data):
        runs = exclude_repeated(runs)
        data, side = _chosen(runs)
    return exclude_outliers(runs, side)


def _chosen(runs: pd.DataFrame) -> tuple[FitData | None, Array]:
    """The runs that count, and the side on which others were screened out; None without a law."""
    included = int((runs["excluded"] == "").sum())
    try:
        data = read_fit_data(runs, Options())
        if refuse_parametric(data) is None:
            with np.errstate(all="ignore"):
                chosen = choose_runs(data, Options())
            return chosen.data, chosen.screened.side
    except (ValueError, ArithmeticError, FitError):
        pass  # a sweep must not end because of what is said of its rows
    return None, keep_all(included).side


def sees_data_too_often(runs: pd.DataFrame, data: FitData | None) -> bool:
    """Whether runs have very many passes over their data, and no law of repeated data.

    Args:
        runs: The table.
        data: Those of them that count; None if they carry no parametric law.
    """
    described = data is not None and data.repetition is not None
    return not described and bool((epochs(runs) > MOST_EPOCHS).any())


def exclude_outliers(runs: pd.DataFrame, side: Array) -> pd.DataFrame:
    """A copy of the table with a reason on the runs that were screened out.

    Args:
        runs: The table.
        side: Of each run not yet excluded: above (+1), below (-1) or in line (0).
    """
    runs = runs.copy()
    included = runs.index[runs["excluded"] == ""]
    runs.loc[included[side > 0], "excluded"] = "outlier: loss far above the law"
    runs.loc[included[side < 0], "excluded"] = "outlier: loss far below the law"
    return runs


def _screen(huber: ParametricFit, data: FitData, options: Options) -> tuple[Screened, list[Check]]:
    """The runs to leave out, and a refusal if they would be too many."""
    everything = keep_all(len(data.points))
    if options.outliers == "iqr":
        screened = screen_iqr(huber, data.points)
    elif options.outliers == "residuals" and options.method == "screened":
        screened = screen(huber, data.points)
    else:
        return everything, []
    out = screened.out
    if out.mean() <= MOST_DROPPED:
        return screened, []
    refusal = Check(
        "screen-refused",
        "refuse",
        f"the screen would leave out {int(out.sum())} of {len(out)} runs: none was left out, and "
        "the law is the plain Huber fit.",
        "So many outliers are a sign that the law does not hold for all runs.",
    )
    return everything, [refusal]
