"""One simulated sweep and its laws, which the tests of this folder share."""

import pytest
from designs import found, sweep


@pytest.fixture(scope="session")
def design_runs():
    return sweep()


@pytest.fixture(scope="session")
def findings(design_runs):
    return found(design_runs)
