"""How uncertain the answer at a target budget is, and how certain further runs would make it.

The law's parameters, and what the law misses (`inference.kriging`), are jointly Gaussian given the
runs. Their covariance after further runs depends on where these are made, not on their losses, so
that it is known before they are trained. Under the law alone, cheap runs far from the target would
seem to tell all about it; with the misfit they tell of their neighbourhood (docs/method.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flops_fit.laws.findings import Findings
from flops_fit.laws.inference.kriging.kriging import Kriging
from flops_fit.laws.inference.misfit import sums_at_optimum
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.predict.witnesses import DRIFT

# Least probability that the law misses something, when runs are chosen: that it does is found out
# by runs which are only made if it is taken to be possible.
LEAST_MISFIT = 0.5
SIZE, LOSS = 0, 1  # places of ln N_opt and ln L_opt at the target


@dataclass(frozen=True)
class Uncertainty:
    """Covariances of the answer and of the losses of possible runs.

    The first rows and columns are ln N_opt and ln L_opt at the target, and ln L_opt at the budgets
    between which the law is tested; those of the n candidates follow.

    Attributes:
        parts: One matrix for each setting of the misfit, over its variance of noise, shape
            (s, q + n, q + n).
        weights: Probability of each setting times its variance of noise, shape (s,).
        of_misfit: The same without the settings in which the law is exact, shape (s,).
        num_answers: q.
        drift: Variance of ln N_opt by the drift of every approach beyond the rows: see `drift_of`.
    """

    parts: Array
    weights: Array
    of_misfit: Array
    num_answers: int
    drift: float = 0.0

    @classmethod
    def of(
        cls,
        findings: Findings,
        target: float,
        tests: Sequence[float],
        candidates: pd.DataFrame,
        least_misfit: float = LEAST_MISFIT,
    ) -> Uncertainty:
        """The uncertainty given the runs of `findings`, which must have a misfit.

        Args:
            findings: The laws fitted to the runs so far.
            target: Budget of the answer, FLOPs.
            tests: Budgets at whose optima the law is to be tested.
            candidates: Possible runs: `num_params num_tokens`, n rows.
            least_misfit: Least probability that the law misses something.
        """
        assert findings.misfit is not None
        misfit = findings.misfit
        parts, weights, wrong = [], [], []
        for weight, law in zip(misfit.weights, misfit.laws, strict=True):
            parts.append(_covariances(findings, law, target, tests, candidates))
            shares = _with_misfit(law, least_misfit)
            variances = np.array([setting.variance for setting in law.settings])
            weights.append(weight * shares * variances)
            wrong.append(weights[-1] * [setting.ratio > 0 for setting in law.settings])
        of_misfit = np.concatenate(wrong)
        whole = np.concatenate(weights)
        if not of_misfit.any():  # as where the losses have no noise
            of_misfit = whole
        return cls(np.concatenate(parts), whole, of_misfit, 2 + len(tests))

    def log_variances(self) -> Array:
        """Logarithms of the variances of the answers, shape (q,)."""
        return self._log(self._variances())

    def gains(self) -> Array:
        """By how much one run of each candidate would lower them, shape (q, n)."""
        q = self.num_answers
        with_noise = np.einsum("sii->si", self.parts)[:, q:] + 1
        less = self.parts[:, :q, q:] ** 2 / with_noise[:, None]
        return self.log_variances()[:, None] - self._log(self._variances()[..., None] - less)

    def gain(self, chosen: Sequence[int], drift: float) -> Array:
        """By how much one run of each of these candidates would lower them together, shape (q,).

        Args:
            chosen: Places of the candidates.
            drift: The variance by drift with them.
        """
        less = np.einsum("sqq->sq", self._update(chosen, slice(0, self.num_answers)))
        lower = replace(self, drift=drift)
        return self.log_variances() - lower._log(self._variances() - less)

    def after(self, chosen: Sequence[int], drift: float) -> Uncertainty:
        """The uncertainty once these candidates have been trained; arguments as of `gain`."""
        return replace(self, parts=self.parts - self._update(chosen, slice(None)), drift=drift)

    def _update(self, chosen: Sequence[int], rows: slice) -> Array:
        """What runs take off the covariances of some rows, shape (s, r, r)."""
        at = np.asarray(chosen, int) + self.num_answers
        cross = self.parts[:, rows][:, :, at]
        own = self.parts[:, at][:, :, at] + np.eye(len(at))
        return np.asarray(cross @ np.linalg.solve(own, np.swapaxes(cross, 1, 2)))

    def _variances(self) -> Array:
        return np.einsum("sqq->sq", self.parts[:, : self.num_answers, : self.num_answers])

    def _log(self, variances: Array) -> Array:
        """Logarithms of the mean over settings; where the law is tested, over those of a misfit."""
        whole = np.tensordot(self.weights, variances, (0, 0))
        whole[SIZE] += self.drift
        wrong = np.tensordot(self.of_misfit, variances, (0, 0))
        return np.log(np.maximum(np.concatenate([whole[:2], wrong[2:]]), 1e-300))


def drift_of(findings: Findings, target: float, top: float) -> float:
    """Variance of ln N_opt by the drift of a law from the truth beyond its rows.

    It is counted as the interval counts it (`predict.witnesses`): not where the law most likely
    holds exactly.

    Args:
        findings: The laws.
        target: Budget of the answer, FLOPs.
        top: The largest budget with a row.
    """
    assert findings.misfit is not None
    beyond = max(0.0, math.log(target / top))
    wrong = max(0.0, 1 - 2 * findings.misfit.exact)
    return (wrong * DRIFT * beyond) ** 2


def _with_misfit(law: Kriging, least: float) -> Array:
    """Probabilities of the settings, with at least so much on those with a misfit."""
    weights = np.array([setting.weight for setting in law.settings])
    wrong = np.array([setting.ratio > 0 for setting in law.settings])
    share = float(weights[wrong].sum())
    if not 0 < share < least:
        return weights
    return np.where(wrong, weights * least / share, weights * (1 - least) / (1 - share))


def _covariances(
    findings: Findings,
    law: Kriging,
    target: float,
    tests: Sequence[float],
    candidates: pd.DataFrame,
) -> Array:
    """`Uncertainty.parts` of one law."""
    sums = [sums_at_optimum(law, budget, findings.cost) for budget in (target, *tests)]
    mx, my = law.fit.centre[:2]
    x = np.concatenate([*(s[0] for s in sums), np.log(candidates["num_params"]) - mx])
    y = np.concatenate([*(s[1] for s in sums), np.log(candidates["num_tokens"]) - my])
    n, m = len(candidates), len(sums[0][0])
    q = 2 + len(tests)
    factors = np.zeros((q + n, len(x)))
    factors[:2, :m] = sums[0][2]
    for i, (_, _, of_test) in enumerate(sums[1:]):
        factors[2 + i, m * (i + 1) : m * (i + 2)] = of_test[LOSS]
    factors[q:, m * len(sums) :] = np.eye(n)
    return law.covariances(x, y, factors)
