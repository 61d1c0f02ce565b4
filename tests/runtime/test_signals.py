import os
import signal
import threading

import pytest

from flops_fit.runtime.signals import StopRequest, orderly_termination, stop_at_boundary


def test_no_stop_is_requested_at_first():
    with stop_at_boundary() as stop:
        assert not stop


def test_a_first_signal_sets_the_flag_a_second_acts_as_before():
    with stop_at_boundary() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop
        assert isinstance(stop.exception(), KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_patient_request_ignores_a_second_signal():
    with stop_at_boundary(patient=True) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert isinstance(stop.exception(), KeyboardInterrupt)


def test_an_error_that_ends_more_than_its_trial_asks_to_stop():
    request = StopRequest()
    request.error = ValueError("gone")
    assert request
    assert request.exception() is request.error


def test_sigterm_ends_in_143():
    with stop_at_boundary() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.exception().code == 143


def test_in_another_thread_nothing_is_changed():
    found = []

    def work():
        with stop_at_boundary() as stop, orderly_termination():
            found.append((bool(stop), signal.getsignal(signal.SIGINT)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, before)]


def test_termination_unwinds_the_stack():
    with pytest.raises(SystemExit) as caught, orderly_termination():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_at_boundary() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop
    finally:
        signal.signal(signal.SIGINT, before)
