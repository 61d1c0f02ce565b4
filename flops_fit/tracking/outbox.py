"""Telling the ledger of trials without waiting for it.

Each record goes to the spool on disk first (`spool`). A thread of each worker brings it to the
ledger, in order and at least once, and tries again every second while the store is away; training
waits for it at most a second, at the end of a trial. What a process leaves undelivered is delivered
by the next that looks (`deliver_left`).
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flops_fit import tracking
from flops_fit.errors import StoreError
from flops_fit.records import Trial
from flops_fit.tracking import recording
from flops_fit.tracking.journal import Journal, create, left_over
from flops_fit.tracking.ledger import Ledger, now

PROMPT_S = 1.0  # the longest that training waits for a server
_LOCAL_S = 10.0  # the longest that it waits for a file that has a fault
_RETRY_S = 1.0
_LOG = logging.getLogger("flops_fit")


class Delivery:
    """Brings what one worker tells of its trials to the ledger.

    Attributes:
        fault: Why the ledger could not be told the last time; None while all is well.
    """

    def __init__(self, ledger: Ledger, folder: Path, interval: float = 2.0) -> None:
        self.fault: StoreError | None = None
        self._ledger, self._folder, self._interval = ledger, folder, interval
        self._attempts: list[Attempt] = []
        self._news = threading.Event()
        self._told = threading.Condition()
        self._leaving = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Delivery:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._leaving = True
        self._news.set()
        self._thread.join(PROMPT_S)
        for attempt in self._attempts:
            attempt.journal.close()

    def begin(
        self,
        trial: Trial,
        setting: str,
        params: Mapping[str, str],
        worker: str,
        *,
        goes_on: bool = False,
    ) -> Attempt:
        """Tell that a trial begins, or goes on where it was interrupted.

        Raises:
            StoreError: That cannot be kept on disk.
        """
        name = secrets.token_hex(8)
        journal = create(self._folder, trial.trial_id, name)
        start = {"trial": asdict(trial), "setting": setting, "params": dict(params)}
        more = {"worker": worker, "attempt": name, "goes_on": goes_on}
        journal.append({"what": "start", "at": now(), **start, **more})
        attempt = Attempt(journal, _Replay(self._ledger), self._hurry)
        self._attempts.append(attempt)
        self._news.set()
        return attempt

    def all_delivered(self, seconds: float) -> bool:
        """Wait until nothing is left to deliver, up to so many seconds; whether it is so."""
        self._news.set()
        return self._wait(lambda: not self._attempts, seconds)

    def _hurry(self, attempt: Attempt) -> None:
        """Wait for an attempt's end to arrive: at a server, no longer than a second."""
        self._news.set()
        if self._ledger.home is None:
            self._wait(lambda: attempt.is_over or self.fault is not None, PROMPT_S)
        else:
            self._wait(lambda: attempt.is_over or self.fault is not None, None)
            if not self._wait(lambda: attempt.is_over, _LOCAL_S) and self.fault:
                raise self.fault
        if attempt.refusal:
            raise attempt.refusal

    def _wait(self, so: Callable[[], bool], seconds: float | None) -> bool:
        with self._told:
            return self._told.wait_for(so, seconds)

    def _work(self) -> None:
        while not self._leaving:
            self._news.wait(_RETRY_S if self.fault else self._interval)
            self._news.clear()
            fault = self._round()
            if fault and not self.fault:
                _LOG.warning("%s. Until then it is kept in %s", fault, self._folder)
            if self.fault and not fault:
                _LOG.warning("the MLflow store is back, and has been told what it missed")
            with self._told:
                self.fault = fault
                self._told.notify_all()

    def _round(self) -> StoreError | None:
        for attempt in list(self._attempts):
            try:
                attempt.deliver()
            except StoreError as error:
                return error
            except Exception as error:  # whoever waits for this thread must hear of it
                return StoreError(f"the MLflow store cannot be told: {error!r}")
            if attempt.is_over:
                self._attempts.remove(attempt)
        return None


class Attempt:
    """One attempt at a trial, as its worker tells of it.

    Attributes:
        journal: Where it is kept.
        is_over: Whether the ledger has all of it, or declined it.
        refusal: Why it was declined.
    """

    def __init__(self, journal: Journal, replay: _Replay, hurry: Callable[[Attempt], None]) -> None:
        self.journal, self.is_over, self._ended = journal, False, False
        self.refusal: StoreError | None = None
        self._replay, self._hurry = replay, hurry

    def add(self, step: int, **values: float) -> None:
        """Add a point of the training curve at `step` (tokens seen)."""
        try:
            self.journal.append({"what": "point", "at": now(), "step": step, "values": values})
        except StoreError as error:
            _LOG.warning("a point of a training curve is lost: %s", error)

    def end(
        self,
        state: str,
        reason: str = "",
        trace: str = "",
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
    ) -> None:
        """Tell how it ended: `complete`, `failed`, `diverged`, or back to `planned`.

        The first word counts: an interrupt may come while it is on its way.

        Raises:
            StoreError: That cannot be kept on disk, or is declined, or the ledger is a file that
                cannot be written.
        """
        if self._ended:
            return
        how = {"state": state, "reason": reason, "trace": trace}
        self.journal.end(
            {"what": "end", "at": now(), **how, "metrics": dict(metrics or {}), "step": step}, state
        )
        self._ended = True
        self._hurry(self)

    def deliver(self) -> None:
        """Bring what is new to the ledger.

        Raises:
            StoreError: It is away.
        """
        try:
            self._replay.tell(self.journal.unread())
            self.journal.delivered()
            if self._replay.closed:
                self.journal.remove()
        except StoreError as error:
            if not error.refused:
                raise
            _set_aside(self.journal, error)
            self.refusal = error
        self.is_over = self._replay.closed or self.refusal is not None


class _Replay:
    """An attempt's records brought to the ledger, in order; twice does no harm.

    Attributes:
        closed: Whether the end has arrived.
    """

    def __init__(self, ledger: Ledger, again: bool = False) -> None:
        self.closed = False
        self._ledger, self._again = ledger, again
        self._run_id, self._trial_id, self._setting = "", "", ""

    def tell(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Bring records.

        Raises:
            StoreError: The ledger is away: from the first of them on, all are to be told again.
        """
        try:
            for what, group in itertools.groupby(records, key=lambda record: record["what"]):
                if what == "point":
                    points = ((r["at"], r["step"], r["values"]) for r in group)
                    recording.log_points(self._ledger, self._run_id, points)
                else:
                    for record in group:
                        (self._start if what == "start" else self._end)(record)
        except StoreError:
            self._again = True
            raise

    def _start(self, told: Mapping[str, Any]) -> None:
        trial, ledger, attempt = Trial(**told["trial"]), self._ledger, told["attempt"]
        setting, worker, params = told["setting"], told["worker"], told["params"]
        run_id = None
        if self._again:
            run_id = recording.find_attempt(ledger, trial, params, attempt)
        if run_id is None and told["goes_on"]:
            run_id = recording.reopen_run(ledger, trial.trial_id, setting, worker, attempt)
        self._run_id = run_id or recording.start_run(
            ledger, trial, setting, params, worker, attempt, told["at"]
        )
        self._trial_id, self._setting = trial.trial_id, setting

    def _end(self, told: Mapping[str, Any]) -> None:
        ledger, run_id, state, at = self._ledger, self._run_id, told["state"], told["at"]
        late = self._again and state == "complete"
        if late and tracking.has_ended(ledger, self._trial_id, self._setting, but_for=run_id):
            reason = "another run of this trial was recorded first"
            recording.close_run(ledger, run_id, "planned", reason, end_time=at)
        elif state == "complete":
            recording.complete_run(ledger, run_id, told["metrics"], told["step"], at)
        else:
            recording.close_run(ledger, run_id, state, told["reason"], told["trace"], at)
        self.closed = True


def deliver_left(ledger: Ledger, folder: Path) -> None:
    """Bring what processes that are gone have left in a spool.

    Raises:
        StoreError: The ledger is away.
    """
    for journal in left_over(folder):
        try:
            _Replay(ledger, again=True).tell(journal.unread())
        except StoreError as error:
            if not error.refused:
                journal.close()
                raise
            _set_aside(journal, error)
        except (KeyError, TypeError) as error:
            _set_aside(journal, StoreError(f"it is damaged ({error!r})"))
        journal.remove()


def _set_aside(journal: Journal, error: StoreError) -> None:
    journal.set_aside()
    _LOG.warning("the ledger declines %s, which is set aside: %s", journal.path, error)
