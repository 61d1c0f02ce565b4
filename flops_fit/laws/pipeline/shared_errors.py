"""flops_fit.laws.pipeline.analyse.shared_errors."""

from __future__ import annotations

import numpy as np
from scipy import stats

from flops_fit.laws.fitting.parametric import (
    ParametricFit,
)
from flops_fit.laws.inference.outliers import excess
from flops_fit.laws.pipeline.fit_data import Data


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
