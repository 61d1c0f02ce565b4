"""A file holds its old content or all of the new."""

import os
import stat

import pytest

from flops_fit.runtime.atomic_write import atomic_write


def test_text_and_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "file.json"
    atomic_write(path, "π")
    assert path.read_text(encoding="utf-8") == "π"
    atomic_write(path, b"\0new")
    assert path.read_bytes() == b"\0new"
    assert os.listdir(tmp_path) == ["file.json"]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_fault_leaves_the_old_content_alone_and_nothing_beside_it(tmp_path, monkeypatch, name):
    path = tmp_path / "file.json"
    path.write_text("old")

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.json"]


def test_a_private_file_is_its_owner_s_alone_and_others_follow_the_umask(tmp_path):
    umask = os.umask(0o022)
    try:
        for private, mode in ((True, 0o600), (False, 0o644)):
            path = tmp_path / str(private)
            atomic_write(path, "content", private=private)
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(umask)
