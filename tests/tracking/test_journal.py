"""The journal: another process finds it whole, but not while its writer lives."""

import errno
import os
import signal
import stat

import pytest

from flops_fit.errors import StoreError
from flops_fit.tracking import journal

TRIAL, ATTEMPT = "ab" * 8, "cd" * 8


def test_records_come_back_until_they_are_delivered(tmp_path):
    written = journal.create(tmp_path, TRIAL, ATTEMPT)
    written.append({"step": 1})
    assert written.unread() == [{"step": 1}]
    written.append({"step": 2})
    assert written.unread() == [{"step": 1}, {"step": 2}]
    written.mark_delivered()
    written.append({"loss": float("inf")})
    assert written.unread() == [{"loss": float("inf")}]


def test_a_name_tells_how_an_attempt_stands(tmp_path):
    written = journal.create(tmp_path, TRIAL, ATTEMPT)
    assert journal.entries(tmp_path) == [journal.Entry(TRIAL, ATTEMPT, "running")]
    written.end({}, "complete")
    assert journal.entries(tmp_path) == [journal.Entry(TRIAL, ATTEMPT, "complete")]
    written.remove()
    assert journal.entries(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_is_kept_out_of_the_way(tmp_path):
    journal.create(tmp_path, TRIAL, ATTEMPT).set_aside()
    assert journal.entries(tmp_path) == list(journal.left_over(tmp_path)) == []
    assert len(list(tmp_path.iterdir())) == 1


def test_nobody_else_may_read_it(tmp_path):
    written = journal.create(tmp_path / "spool" / "sweep", TRIAL, ATTEMPT)
    assert stat.S_IMODE(os.stat(tmp_path / "spool" / "sweep").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(tmp_path / "spool").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(written.path).st_mode) == 0o600


def test_a_journal_is_left_over_once_its_writer_is_gone(tmp_path):
    written = journal.create(tmp_path, TRIAL, ATTEMPT)
    written.append({"step": 1})
    assert list(journal.left_over(tmp_path)) == []
    written.close()
    (left,) = journal.left_over(tmp_path)
    assert left.unread() == [{"step": 1}]
    assert list(journal.left_over(tmp_path)) == []  # one driver at a time


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_killed_writer_leaves_its_whole_lines(tmp_path, caplog):
    child = os.fork()
    if child == 0:
        try:
            written = journal.create(tmp_path, TRIAL, ATTEMPT)
            written.append({"step": 1})
            os.write(written._handle, b'garbage\n{"step": 2}\n{"step": 3')
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = journal.left_over(tmp_path)
    assert left.unread() == [{"step": 1}, {"step": 2}]
    assert "is damaged and is skipped: b'garbage'" in caplog.text


def test_a_line_that_found_no_room_leaves_no_torn_one(tmp_path, monkeypatch):
    written = journal.create(tmp_path, TRIAL, ATTEMPT)
    written.append({"step": 1})
    write = os.write

    def short(handle, data):
        if len(data) < 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:4])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(StoreError, match="No space left on device; free some space, then call"):
        written.append({"step": 2})
    monkeypatch.undo()
    written.append({"step": 3})
    assert written.unread() == [{"step": 1}, {"step": 3}]


def test_where_no_spool_can_be_it_is_elsewhere_and_said(tmp_path, caplog):
    (tmp_path / "spool").write_text("a file is in the way")
    written = journal.create(tmp_path / "spool", TRIAL, ATTEMPT)
    written.append({"step": 1})
    assert written.unread() == [{"step": 1}]
    assert "are kept in" in caplog.text
    written.remove()
    written.path.parent.rmdir()
