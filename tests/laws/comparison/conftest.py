"""Sweeps of planted laws, fitted once."""

from functools import cache

import pytest
from planted import pair

from flops_fit.fit_table import fit


@cache
def fitted(multiplier, correlation):
    return tuple(fit(table, num_draws=100).findings for table in pair(multiplier, correlation))


@pytest.fixture(scope="session")
def planted_pair():
    """A function that gives the findings of a planted pair of sweeps."""
    return fitted
