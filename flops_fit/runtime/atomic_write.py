"""Files that are either the old version or the whole new one, whenever the process is killed.

The content is written to a hidden file in the same folder, synced to disk and renamed: POSIX
replaces a file in one step. The folder is synced last, so that the rename outlives a power cut.
"""

from __future__ import annotations

import os
from pathlib import Path

_PUBLIC_MODE = 0o666  # reduced by the umask, as for any new file
_PRIVATE_MODE = 0o600


def atomic_write(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Write a file; readers see the old content or all of the new.

    Args:
        path: The file.
        content: Bytes, or text that is written as UTF-8.
        private: Whether only the file's owner may read it.

    Raises:
        OSError: It could not be written; the old content stands.
    """
    data = content.encode() if isinstance(content, str) else content
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    mode = _PRIVATE_MODE if private else _PUBLIC_MODE
    try:
        with open(unfinished, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
        move_into_place(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def move_into_place(unfinished: Path, path: Path) -> None:
    """Sync a file that was written beside its place, and rename it into that place.

    Raises:
        OSError: It could not be synced or renamed.
    """
    _sync(unfinished, os.O_RDWR)
    os.replace(unfinished, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, so that a rename outlives a power cut."""
    _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
