"""Whether runs of one size share an error, as they do if a learning rate suits some sizes only."""

from __future__ import annotations

import numpy as np

from flops_fit.laws.distributions import f_quantile
from flops_fit.laws.fitting.parametric import ParametricFit, excess
from flops_fit.laws.pipeline.fit_data import FitData

# Sizes share an error if the analysis of variance rejects independence at this level.
LEVEL = 0.01


def sizes_share_error(fit: ParametricFit, data: FitData) -> bool:
    """Whether the residuals of one size are alike: one-way analysis of variance, p < 0.01."""
    r = excess(fit, data.points)
    labels, index, counts = np.unique(data.sizes, return_inverse=True, return_counts=True)
    k, dof = len(labels), len(r) - len(labels) - fit.num_free
    # Too few sizes to test, too few repeated ones, or no noise at all.
    if k < 3 or dof < 3 or (counts > 1).sum() < 3 or fit.residual_std < 1e-9:
        return False
    means = np.bincount(index, r) / counts
    between = float((counts * means**2).sum()) / (k - 1)
    within = float(((r - means[index]) ** 2).sum()) / dof
    return between / max(within, 1e-300) > f_quantile(1 - LEVEL, k - 1, dof)
