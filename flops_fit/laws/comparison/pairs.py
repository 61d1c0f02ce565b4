"""Pairs: runs of two sweeps that share their randomness, so that what both share cancels.

Two runs of one budget and one place in its row that saw the same data in the same order, from the
same generator state, have much of their noise in common; and where both laws bend, they bend alike.
The difference of their residuals shows only what differs. It is a smooth function and noise again,
so `inference.kriging` measures both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from flops_fit.laws.findings import Findings
from flops_fit.laws.fitting.parametric import Form, ParametricFit, excess
from flops_fit.laws.inference.intervals import LEVEL
from flops_fit.laws.inference.kriging.kriging import Kriging
from flops_fit.laws.inference.misfit import LEAST_DOF
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.runs.budgets import group_budgets
from flops_fit.laws.runs.points import Points

# Fewest pairs, and the level at which their residuals must be seen to agree: pairs that have
# nothing in common but chance are not to narrow an interval.
LEAST_PAIRS = 12
SEEN_AT = 0.01


@dataclass(frozen=True)
class Pairs:
    """Paired runs, and the law of their differences.

    Attributes:
        count: Number of pairs.
        correlation: Correlation of their residuals about the laws.
        fits: The fits of the first and of the second sweep, for each form that counts.
        weights: How much each form counts.
        krigings: The differences of the residuals, for each form.
    """

    count: int
    correlation: float
    fits: tuple[tuple[ParametricFit, ParametricFit], ...]
    weights: tuple[float, ...]
    krigings: tuple[Kriging, ...]

    def differences(self, x: tuple[Array, Array], y: tuple[Array, Array]) -> tuple[Array, Array]:
        """The log of the second loss over the first, and the half-width of its 95 % interval.

        Args:
            x: ln N of the models of the first and of the second sweep, shape (k,) each.
            y: ln D of them, shape (k,) each.
        """
        found = [self._difference(i, x, y) for i in range(len(self.weights))]
        weights = np.array(self.weights)
        means, variances = (np.stack(column) for column in zip(*found, strict=True))
        mean = weights @ means
        variance = weights @ (variances + (means - mean) ** 2)
        dof = min(kriging.dof for kriging in self.krigings)
        return mean, float(stats.t.ppf(0.5 + LEVEL / 2, dof)) * np.sqrt(variance)

    def _difference(
        self, i: int, x: tuple[Array, Array], y: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        """The difference by one form, and its variance, shape (k,) each."""
        logs = [
            np.log(fit.law.loss(np.exp(log_N), np.exp(log_D)))
            for fit, log_N, log_D in zip(self.fits[i], x, y, strict=True)
        ]
        kriging = self.krigings[i]
        mx, my, *_ = kriging.fit.centre
        middle_x, middle_y = (x[0] + x[1]) / 2 - mx, (y[0] + y[1]) / 2 - my
        mean, variance, _ = kriging.posterior(
            middle_x[:, None], middle_y[:, None], np.ones((len(middle_x), 1))
        )
        return logs[1] - logs[0] + mean, variance


def find_pairs(first: Findings, second: Findings) -> Pairs | None:
    """The paired runs of two sweeps; None if there are too few, or nothing that they share."""
    forms = _forms(first, second)
    rows = matching_runs(first.fitted_runs, second.fitted_runs)
    most_free = max((first.fits[form].num_free for form in forms), default=0)
    if not forms or len(rows) < max(LEAST_PAIRS, most_free + LEAST_DOF):
        return None
    points = [
        Points.from_runs(findings.fitted_runs.iloc[rows[:, i]])
        for i, findings in enumerate((first, second))
    ]
    residuals = {
        form: [excess(f.fits[form], at) for f, at in zip((first, second), points, strict=True)]
        for form in forms
    }
    likeliest = max(forms, key=forms.__getitem__)
    found = stats.pearsonr(*residuals[likeliest], alternative="greater")
    if not found.pvalue < SEEN_AT:
        return None
    return Pairs(
        len(rows),
        float(found.statistic),
        tuple((first.fits[form], second.fits[form]) for form in forms),
        tuple(forms.values()),
        tuple(
            Kriging.of(first.fits[form], points[0], there - here)
            for form, (here, there) in residuals.items()
        ),
    )


def matching_runs(first: pd.DataFrame, second: pd.DataFrame) -> np.ndarray:
    """Positions of the runs of one budget and one place in its row, shape (pairs, 2).

    The place is the size where sizes are named alike, else the rank of N in the row. Where runs are
    repeated, the first of one sweep is paired with the first of the other.
    """
    both = pd.concat([first, second], ignore_index=True)
    in_second = np.arange(len(both)) >= len(first)
    sizes = [set(runs["size"].dropna()) for runs in (first, second)]
    rows = both.assign(sweep=in_second, row=group_budgets(both["compute_budget"]))
    rank = rows.groupby(["sweep", "row"])["num_params"].rank("dense")
    rows["place"] = rows["size"].astype(str) if sizes[0] & sizes[1] else rank
    key = ["row", "place"]
    rows["repeat"] = rows.groupby(["sweep", *key]).cumcount()
    rows["position"] = np.where(in_second, np.arange(len(both)) - len(first), np.arange(len(both)))
    here, there = (rows[rows["sweep"] == which] for which in (False, True))
    pairs = here.merge(there, on=[*key, "repeat"], suffixes=("", "_second"))
    return pairs[["position", "position_second"]].to_numpy(int)


def _forms(first: Findings, second: Findings) -> dict[Form, float]:
    """The forms by which both sweeps are fitted, with the mean of their weights.

    One form for both: else what the forms make of the same losses would pass for a difference.
    """
    for findings in (first, second):
        plain = findings.misfit is not None and findings.repetition is None
        if not plain or findings.fits["headline"].space != "log":
            return {}
    shares = [_bent_share(findings) for findings in (first, second)]
    bent = float(np.mean(shares)) if "bent" in first.fits and "bent" in second.fits else 0.0
    forms: dict[Form, float] = {"five": 1 - bent, "bent": bent}
    return {form: weight for form, weight in forms.items() if weight > 0}


def _bent_share(findings: Findings) -> float:
    """How much the bent law counts in predictions."""
    assert findings.misfit is not None
    counted = zip(findings.misfit.weights, findings.misfit.laws, strict=True)
    return sum(weight for weight, law in counted if law.fit.form == "bent")
