import warnings

import pytest
import torch

from flops_fit.errors import FlopsFitWarning
from flops_fit.runtime import cpu_threads
from flops_fit.runtime.cpu_threads import threads_that_help


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    cpu_threads._warn_once.cache_clear()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def slower_together(ratio):
    """Returns seconds of a step: `ratio` times as many with two threads as with one."""
    return lambda: 1e-3 if torch.get_num_threads() == 1 else ratio * 1e-3


def test_threads_that_hinder_are_not_used(two_threads):
    with (
        pytest.warns(FlopsFitWarning, match="2 CPU threads train far slower than one"),
        threads_that_help(slower_together(70)),
    ):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_threads_are_kept_where_they_do_no_harm(two_threads):
    with threads_that_help(slower_together(2)):
        assert torch.get_num_threads() == 2


@pytest.mark.filterwarnings("ignore:2 CPU threads")
def test_threads_come_back_after_a_fault(two_threads):
    with pytest.raises(ZeroDivisionError), threads_that_help(slower_together(70)):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


def test_by_default_a_step_is_timed_with_all_threads_and_with_one(two_threads, monkeypatch):
    measure_step, measured = cpu_threads._measure_step, []

    def recorded():
        seconds = measure_step()
        measured.append((torch.get_num_threads(), seconds))
        return seconds

    monkeypatch.setattr(cpu_threads, "_measure_step", recorded)
    state = torch.get_rng_state()
    with warnings.catch_warnings(action="ignore"), threads_that_help():
        pass
    assert [threads for threads, _ in measured] == [2, 1]
    assert min(seconds for _, seconds in measured) > 0
    assert torch.equal(torch.get_rng_state(), state)
