"""The spool: what is written is there for another process, whole, and nobody else's meanwhile."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from flops_fit.errors import StoreError
from flops_fit.sweep import spool

TRIAL, ATTEMPT = "ab" * 8, "cd" * 8


def test_records_come_back_until_they_are_delivered(tmp_path):
    journal = spool.create(tmp_path, TRIAL, ATTEMPT)
    journal.append({"step": 1})
    assert journal.unread() == [{"step": 1}]
    journal.append({"step": 2})
    assert journal.unread() == [{"step": 1}, {"step": 2}]
    journal.delivered()
    journal.append({"loss": float("inf")})
    assert journal.unread() == [{"loss": float("inf")}]


def test_a_name_tells_how_an_attempt_stands(tmp_path):
    journal = spool.create(tmp_path, TRIAL, ATTEMPT)
    assert spool.entries(tmp_path) == [spool.Entry(TRIAL, ATTEMPT, "running")]
    journal.end({}, "complete")
    assert spool.entries(tmp_path) == [spool.Entry(TRIAL, ATTEMPT, "complete")]
    journal.remove()
    assert spool.entries(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_is_kept_out_of_the_way(tmp_path):
    spool.create(tmp_path, TRIAL, ATTEMPT).set_aside()
    assert spool.entries(tmp_path) == list(spool.left_over(tmp_path)) == []
    assert len(list(tmp_path.iterdir())) == 1


def test_nobody_else_may_read_it(tmp_path):
    journal = spool.create(tmp_path / "spool" / "sweep", TRIAL, ATTEMPT)
    assert stat.S_IMODE(os.stat(tmp_path / "spool" / "sweep").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(tmp_path / "spool").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(journal.path).st_mode) == 0o600


def test_a_journal_is_left_over_once_its_writer_is_gone(tmp_path):
    journal = spool.create(tmp_path, TRIAL, ATTEMPT)
    journal.append({"step": 1})
    assert list(spool.left_over(tmp_path)) == []
    journal.close()
    (left,) = spool.left_over(tmp_path)
    assert left.unread() == [{"step": 1}]
    assert list(spool.left_over(tmp_path)) == []  # one driver at a time


def test_a_killed_writer_leaves_its_whole_lines(tmp_path, caplog):
    code = (
        "import os, sys, pathlib; from flops_fit.sweep import spool; "
        f"j = spool.create(pathlib.Path(sys.argv[1]), '{TRIAL}', '{ATTEMPT}'); "
        "j.append({'step': 1}); os.write(j._handle, b'garbage\\n{\"step\": 2}\\n{\"step\": 3'); "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path])
    (left,) = spool.left_over(tmp_path)
    assert left.unread() == [{"step": 1}, {"step": 2}]
    assert "is damaged and passed over: b'garbage'" in caplog.text


def test_a_line_that_found_no_room_leaves_no_torn_one(tmp_path, monkeypatch):
    journal = spool.create(tmp_path, TRIAL, ATTEMPT)
    journal.append({"step": 1})
    write = os.write

    def short(handle, data):
        if len(data) < 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:4])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(StoreError, match="No space left on device; free some space, then call"):
        journal.append({"step": 2})
    monkeypatch.undo()
    journal.append({"step": 3})
    assert journal.unread() == [{"step": 1}, {"step": 3}]


def test_where_no_spool_can_be_it_is_elsewhere_and_said(tmp_path, caplog):
    (tmp_path / "spool").write_text("a file is in the way")
    journal = spool.create(tmp_path / "spool", TRIAL, ATTEMPT)
    journal.append({"step": 1})
    assert journal.unread() == [{"step": 1}]
    assert "is kept in" in caplog.text
    journal.remove()
    journal.path.parent.rmdir()
