"""Waits say once that they wait, keep others informed, and end with the last error."""

import math

import pytest

from flops_fit.runtime.polling import NotYetError, poll


class Wait:
    """An attempt that fails some times, and what `poll` does meanwhile."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.reported: list[str] = []
        self.num_pauses = 0

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "the answer"

    def pause(self) -> None:
        self.num_pauses += 1

    def poll(self, timeout_s: float = math.inf) -> str:
        return poll(
            self,
            is_temporary=lambda error: isinstance(error, NotYetError),
            timeout_s=timeout_s,
            pause_s=0.0,
            report=lambda error: self.reported.append(str(error)),
            before_pause=self.pause,
        )


def test_what_is_there_at_once_is_not_waited_for():
    wait = Wait()
    assert wait.poll() == "the answer"
    assert (wait.reported, wait.num_pauses) == ([], 0)


def test_the_wait_is_reported_once_and_others_are_informed_at_each_pause():
    wait = Wait(NotYetError("first"), NotYetError("second"), NotYetError("third"))
    assert wait.poll() == "the answer"
    assert (wait.reported, wait.num_pauses) == (["first"], 3)


def test_an_error_that_waiting_cannot_mend_ends_it():
    with pytest.raises(ValueError, match="no such thing"):
        Wait(NotYetError("first"), ValueError("no such thing")).poll()


def test_after_the_timeout_the_last_error_is_raised():
    wait = Wait(NotYetError("still not there"))
    with pytest.raises(NotYetError, match="still not there"):
        wait.poll(timeout_s=0.0)
    assert wait.reported == []
