import logging
import sys
import threading
import warnings
from contextlib import redirect_stderr

import pytest

from flops_fit.runtime.announce import announce_if_slow, quietly


class Screen:
    """Stands for sys.stderr, and tells when something was written to it."""

    def __init__(self):
        self.text = ""
        self.written = threading.Event()

    def write(self, text):
        self.text += text

    def flush(self):
        self.written.set()


@pytest.fixture
def screen():
    return Screen()


def test_what_takes_long_is_announced(screen):
    with redirect_stderr(screen), announce_if_slow("Planning", after_s=0):
        assert screen.written.wait(60)
    assert screen.text.startswith("Planning\n")


def test_a_function_tells_how_far_it_is(screen):
    with redirect_stderr(screen), announce_if_slow(lambda: "7 sizes", after_s=0):
        assert screen.written.wait(60)
    assert screen.text.startswith("7 sizes\n")


def test_what_is_fast_is_not_announced(screen):
    with redirect_stderr(screen), announce_if_slow("Planning", after_s=3600):
        pass
    assert screen.text == ""


def test_other_ranks_are_silent(screen, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    before = threading.active_count()
    with redirect_stderr(screen), announce_if_slow("Planning", after_s=0):
        assert threading.active_count() == before
    assert screen.text == ""


def test_an_announcement_reaches_the_screen_from_quiet_code(screen):
    with redirect_stderr(screen), announce_if_slow("Planning", after_s=0), quietly():
        assert screen.written.wait(60)
    assert screen.text.startswith("Planning\n")


def test_an_error_passes(screen):
    with pytest.raises(ValueError, match="no"), announce_if_slow("Planning"):
        raise ValueError("no")


def test_nothing_is_heard_of_quiet_code(capsys, caplog, recwarn):
    with quietly():
        print("a banner")
        print("a warning", file=sys.stderr)
        warnings.warn("deprecated", stacklevel=1)
        logging.getLogger("library").warning("slow path")
    assert capsys.readouterr() == ("", "")
    assert not caplog.records
    assert not recwarn.list


def test_the_caller_is_heard_after_quiet_code_that_raises(capsys, caplog):
    with pytest.raises(ValueError, match="no"), quietly():
        raise ValueError("no")
    print("heard")
    logging.getLogger("user").warning("heard")
    assert capsys.readouterr().out == "heard\n"
    assert [record.message for record in caplog.records] == ["heard"]
