"""A sweep whose store can be read, but not written."""

import warnings

import pytest
from sweeps import SMALL_BUDGETS, SMALL_SIZES, sweep

from flops_fit import api
from flops_fit.errors import FlopsFitWarning, StoreError


@pytest.fixture
def read_only(finished, monkeypatch):
    """The folder of a finished sweep, in which no job can be opened."""

    def open_job(*args):
        raise StoreError("attempt to write a readonly database")

    monkeypatch.setattr(api, "open_job", open_job)
    monkeypatch.setattr("flops_fit.analysis._write_report", lambda *args: None)
    return finished.folder


def test_a_finished_sweep_gives_its_result(read_only):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FlopsFitWarning)
        result = sweep(read_only, list(SMALL_BUDGETS), sizes=SMALL_SIZES)
    assert len(result.runs) == 8
    messages = [str(warning.message) for warning in caught]
    assert any("all trials are done" in m and "readonly database" in m for m in messages)


@pytest.mark.parametrize("budgets", [[*SMALL_BUDGETS, 6e8], [6e8]])
def test_a_sweep_with_trials_to_run_is_refused(read_only, budgets):
    with pytest.raises(StoreError, match="readonly database"):
        sweep(read_only, budgets, sizes=SMALL_SIZES)
