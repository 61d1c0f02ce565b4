"""Sending records to the ledger without waiting for it.

Each record goes to the journal on disk first (`journal`). A thread of each worker sends it to the
ledger, in order and at least once, and retries every second while the store is away. Training waits
for it at most a second, at the end of a trial. What a process leaves undelivered is delivered by
the next process that looks (`deliver_left`).
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
from flops_fit.tracking.ledger import Ledger, now_ms

PROMPT_S = 1.0  # the longest that training waits for a server
_LOCAL_S = 10.0  # the longest that it waits for a SQLite file that has a fault
_RETRY_S = 1.0
_LOG = logging.getLogger("flops_fit")


class Outbox:
    """Sends what one worker records of its trials to the ledger.

    Attributes:
        fault: Why the last delivery failed; None while all is well.
    """

    def __init__(self, ledger: Ledger, folder: Path, interval: float = 2.0) -> None:
        """Prepare; the thread starts when the outbox is entered.

        Args:
            ledger: The sweep.
            folder: The journal's folder.
            interval: Seconds between two deliveries while a trial trains.
        """
        self.fault: StoreError | None = None
        self._ledger = ledger
        self._folder = folder
        self._interval = interval
        self._attempts: list[Attempt] = []
        self._wake = threading.Event()
        self._delivery_tried = threading.Condition()
        self._leaving = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Outbox:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._leaving = True
        self._wake.set()
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
        resumes: bool = False,
    ) -> Attempt:
        """Record the start of an attempt at a trial.

        Args:
            trial: The trial.
            setting: Hash of what all trials share.
            params: What is written on its run beside the trial's own fields.
            worker: Who trains it.
            resumes: Whether it continues an interrupted attempt, whose run is then continued.

        Raises:
            StoreError: The record cannot be kept on disk.
        """
        attempt_id = secrets.token_hex(8)
        journal = create(self._folder, trial.trial_id, attempt_id)
        record = {
            "what": "start",
            "at": now_ms(),
            "trial": asdict(trial),
            "setting": setting,
            "params": dict(params),
            "worker": worker,
            "attempt": attempt_id,
            "goes_on": resumes,
        }
        journal.append(record)
        attempt = Attempt(journal, _Replay(self._ledger), self._flush)
        self._attempts.append(attempt)
        self._wake.set()
        return attempt

    def all_delivered(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds until nothing is left to deliver; whether that is so."""
        self._wake.set()
        return self._wait_until(lambda: not self._attempts, timeout_s)

    def _flush(self, attempt: Attempt) -> None:
        """Wait for the delivery of an attempt's end: at a server, no longer than `PROMPT_S`."""

        def tried() -> bool:
            return attempt.is_over or self.fault is not None

        self._wake.set()
        if self._ledger.home is None:
            self._wait_until(tried, PROMPT_S)
        else:
            self._wait_until(tried, None)
            # A SQLite file rarely recovers, so its fault is raised, after some retries.
            if not self._wait_until(lambda: attempt.is_over, _LOCAL_S) and self.fault:
                raise self.fault
        if attempt.refusal:
            raise attempt.refusal

    def _wait_until(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        with self._delivery_tried:
            return self._delivery_tried.wait_for(condition, timeout_s)

    def _work(self) -> None:
        """The thread: deliver at intervals, and at once when woken."""
        while not self._leaving:
            self._wake.wait(_RETRY_S if self.fault else self._interval)
            self._wake.clear()
            fault = self._deliver_all()
            if fault and not self.fault:
                _LOG.warning("%s. Until then, records are kept in %s", fault, self._folder)
            if self.fault and not fault:
                _LOG.warning("the MLflow store is back, and has received what it missed")
            with self._delivery_tried:
                self.fault = fault
                self._delivery_tried.notify_all()

    def _deliver_all(self) -> StoreError | None:
        for attempt in list(self._attempts):
            try:
                attempt.deliver()
            except StoreError as error:
                return error
            except Exception as error:  # a thread must not die while others wait for it
                return StoreError(f"the MLflow store cannot be written: {error!r}")
            if attempt.is_over:
                self._attempts.remove(attempt)
        return None


class Attempt:
    """One attempt at a trial, as its worker records it.

    Attributes:
        journal: Its records on disk.
        is_over: Whether the ledger has all of it, or declined it.
        refusal: Why it was declined; None if it was not.
    """

    def __init__(self, journal: Journal, replay: _Replay, flush: Callable[[Attempt], None]) -> None:
        self.journal = journal
        self.is_over = False
        self.refusal: StoreError | None = None
        self._ended = False
        self._replay = replay
        self._flush = flush

    def add(self, step: int, **values: float) -> None:
        """Add a point of the training curve at `step` (tokens seen); logs if it cannot be kept."""
        record = {"what": "point", "at": now_ms(), "step": step, "values": values}
        try:
            self.journal.append(record)
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
        """Record how it ended. Only the first call counts: an interrupt may cause a second.

        Args:
            state: `complete`, `failed`, `diverged`, or back to `planned`.
            reason: Why, in one line.
            trace: The traceback.
            metrics: Final values by name.
            step: Tokens seen.

        Raises:
            StoreError: The record cannot be kept on disk, the ledger declines it, or the ledger is
                a SQLite file that cannot be written.
        """
        if self._ended:
            return
        record = {
            "what": "end",
            "at": now_ms(),
            "state": state,
            "reason": reason,
            "trace": trace,
            "metrics": dict(metrics or {}),
            "step": step,
        }
        self.journal.end(record, state)
        self._ended = True
        self._flush(self)

    def deliver(self) -> None:
        """Send new records to the ledger.

        Raises:
            StoreError: It is away.
        """
        try:
            self._replay.send(self.journal.unread())
            self.journal.mark_delivered()
            if self._replay.closed:
                self.journal.remove()
        except StoreError as error:
            if not error.refused:
                raise
            _set_aside(self.journal, error)
            self.refusal = error
        self.is_over = self._replay.closed or self.refusal is not None


class _Replay:
    """Sends an attempt's records to the ledger, in order; sending some twice does no harm.

    Attributes:
        closed: Whether the ledger has the end of the attempt.
    """

    def __init__(self, ledger: Ledger, is_resend: bool = False) -> None:
        self.closed = False
        self._ledger = ledger
        self._is_resend = is_resend  # some records may be in the ledger already
        self._run_id = ""
        self._trial_id = ""
        self._setting = ""

    def send(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Send records.

        Raises:
            StoreError: The ledger is away; all of these records are to be sent again.
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
            self._is_resend = True
            raise

    def _start(self, record: Mapping[str, Any]) -> None:
        trial = Trial(**record["trial"])
        ledger, attempt = self._ledger, record["attempt"]
        setting, worker, params = record["setting"], record["worker"], record["params"]
        run_id = None
        if self._is_resend:
            run_id = recording.find_attempt(ledger, trial, params, attempt)
        if run_id is None and record["goes_on"]:
            run_id = recording.reopen_run(ledger, trial.trial_id, setting, worker, attempt)
        if run_id is None:
            run_id = recording.start_run(
                ledger, trial, setting, params, worker, attempt, record["at"]
            )
        self._run_id = run_id
        self._trial_id = trial.trial_id
        self._setting = setting

    def _end(self, record: Mapping[str, Any]) -> None:
        ledger, run_id = self._ledger, self._run_id
        state, ended_at = record["state"], record["at"]
        # A late result does not count if another attempt was recorded meanwhile.
        may_be_late = self._is_resend and state == "complete"
        if may_be_late and tracking.has_ended(
            ledger, self._trial_id, self._setting, but_for=run_id
        ):
            reason = "another run of this trial was recorded first"
            recording.close_run(ledger, run_id, "planned", reason, end_time=ended_at)
        elif state == "complete":
            recording.complete_run(ledger, run_id, record["metrics"], record["step"], ended_at)
        else:
            reason, trace = record["reason"], record["trace"]
            recording.close_run(ledger, run_id, state, reason, trace, ended_at)
        self.closed = True


def deliver_left(ledger: Ledger, folder: Path) -> None:
    """Deliver the journals that processes which are gone have left.

    Args:
        ledger: The sweep.
        folder: The journal's folder.

    Raises:
        StoreError: The ledger is away.
    """
    for journal in left_over(folder):
        try:
            _Replay(ledger, is_resend=True).send(journal.unread())
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
