"""Claims on a device: a queue in a file beside the store, whose first entries share the device.

Each entry names a worker and the share that it claims. Those at the front whose shares add up to at
most 1 have the device; all behind them wait, also small ones, so that a trial that needs the whole
device is not passed over for ever. Nobody hands a share back on behalf of a worker that was killed:
whoever looks at the queue drops the entries of dead workers first.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from flops_fit.errors import StoreError
from flops_fit.runtime.atomic_write import atomic_write
from flops_fit.runtime.polling import NotYetError, poll
from flops_fit.runtime.process_id import at_work, is_dead, is_name
from flops_fit.store.locks import file_locked
from flops_fit.sweep.task.hashing import digest

PAUSE_S = 0.2
_WHOLE = 1 + 1e-9


@dataclass(frozen=True)
class _Entry:
    """A worker's claim. Its fields are a stored format, read by workers of other versions."""

    owner: str
    share: float


@contextmanager
def share_claimed(
    file: Path,
    owner: str,
    share: float,
    before_pause: Callable[[], None],
    report: Callable[[Exception], object] = lambda error: None,
) -> Iterator[None]:
    """Hold a share of a device; waits for it.

    Args:
        file: The device's queue. Workers of other hosts have other files.
        owner: Name of this worker (`process_id`); it holds one share at a time.
        share: Of the device, at most 1.
        before_pause: Called while waiting; it may raise, to give up.
        report: Called once with what it waits for, if it waits.

    Raises:
        StoreError: The queue cannot be read or written.
    """

    def check() -> None:
        if owner not in _holders(_kept(file, _Entry(owner, share))):
            raise NotYetError("another sweep of this store trains on the GPU")

    try:
        poll(
            check,
            is_temporary=lambda error: isinstance(error, NotYetError),
            timeout_s=float("inf"),
            pause_s=PAUSE_S,
            report=report,
            before_pause=before_pause,
        )
        yield
    finally:
        _kept(file, None, leaves=owner)


def claims_file(folder: Path, device: str) -> Path:
    """The queue of those that claim a device of this host."""
    return folder / f"{digest([socket.gethostname(), device])}.json"


def check_claims(folder: Path) -> None:
    """Check that claims can be kept in a folder.

    Raises:
        StoreError: They cannot.
    """
    with at_work() as owner, share_claimed(folder / "check.json", owner, 0.0, lambda: None):
        pass


def holders(file: Path) -> set[str]:
    """The workers that have the device now."""
    return _holders(_kept(file, None))


def _holders(entries: list[_Entry]) -> set[str]:
    sums = accumulate(entry.share for entry in entries)
    return {entry.owner for entry, total in zip(entries, sums, strict=True) if total <= _WHOLE}


def _kept(file: Path, own: _Entry | None, leaves: str = "") -> list[_Entry]:
    """The queue without dead workers, with an entry of one's own added if it is not there."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file_locked(file.with_suffix(".lock")):
            before = _read(file)
            entries = [e for e in before if e.owner != leaves and not is_dead(e.owner)]
            if own is not None and all(entry.owner != own.owner for entry in entries):
                entries.append(own)
            if entries != before:
                atomic_write(file, json.dumps([asdict(entry) for entry in entries]), private=True)
            return entries
    except OSError as error:
        raise StoreError(
            f"the claims on this machine's devices cannot be kept in {file.parent}: {error}; make "
            "it a folder that this user can write"
        ) from error


def _read(file: Path) -> list[_Entry]:
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        found = []
    # What is no claim is of somebody else's making: who made it enters again.
    return [_Entry(**each) for each in found if _is_entry(each)] if isinstance(found, list) else []


def _is_entry(found: Any) -> bool:
    if not isinstance(found, dict) or set(found) != {"owner", "share"}:
        return False
    owner, share = found["owner"], found["share"]
    is_share = isinstance(share, int | float) and 0 <= share <= 1
    return is_share and isinstance(owner, str) and is_name(owner)
