"""Equal laws beside each other; `benchmarks/comparison.py` measures it over many sweeps."""

import numpy as np
import pytest
from planted import BUDGETS, pair

from flops_fit.fit_table import fit
from flops_fit.laws.comparison.contrast import Contrast
from flops_fit.laws.inference.intervals import NORMAL

AT = BUDGETS[-1] * np.array([0.3, 1.0, 10.0])
PAIRS = 12


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_intervals_are_as_wide_as_the_errors(correlation):
    """Intervals of half or twice the width lie outside of these bounds."""
    errors = []
    for seed in range(PAIRS):
        both = (fit(table, num_draws=100).findings for table in pair(1.0, correlation, seed=seed))
        contrast = Contrast.of(*both)
        assert (contrast.pairs is not None) == (correlation > 0)
        found = contrast.difference(AT)
        errors.append(found.value / ((found.high - found.low) / 2 / NORMAL))
    size = np.sqrt(np.mean(np.square(errors), axis=0))
    assert ((0.55 < size) & (size < 1.45)).all()
