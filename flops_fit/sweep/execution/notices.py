"""flops_fit.sweep.execution.notices."""

from __future__ import annotations

import contextlib
import math
import sys
import time
import warnings
from collections.abc import Iterator

from flops_fit import tracking
from flops_fit.errors import FlopsFitWarning
from flops_fit.records import Event, Listener, Run
from flops_fit.store.retry import with_timeout
from flops_fit.store.uri import without_credentials
from flops_fit.sweep.execution.executors import _size_param
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.execution.progress import Progress, summary
from flops_fit.sweep.execution.status import (
    MAX_ATTEMPTS,
    done_in_words,
)
from flops_fit.tracking.ledger import ENDED, Ledger
from flops_fit.tracking.outbox import PROMPT_S
from flops_fit.tracking.queries import latest_runs

_NOTE_S = 15.0  # at least so long between two words on the parent run


@contextlib.contextmanager
def _said_how_to_go_on(job: Job) -> Iterator[None]:
    """Ctrl-C carries the message, as the last line of its short traceback; SIGTERM prints it."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(job)) from None
    except SystemExit:
        print(_how_to_go_on(job), file=sys.stderr)
        raise


def _how_to_go_on(job: Job) -> str:
    where = without_credentials(job.ledger.tracking_uri)
    runs = with_timeout(5 * PROMPT_S, lambda: tracking.fetch_all_runs(job.ledger, job.setting))
    if runs is None:
        kept = f"{where} is away; what it missed is kept"
    else:
        kept = f"{done_in_words(job, runs)} and kept in {where}"
    return f"Stopped: {kept}. Start it again to go on from there"


def _warn_of_failures(job: Job, runs: list[Run]) -> None:
    planned = {trial.trial_id for trial in job.trials}
    bad = [run for run in latest_runs(runs) if run.trial_id in planned and run.state != "complete"]
    if bad:
        lines = [f"C={run.compute_budget:.3g} size={run.size}: {run.excluded}" for run in bad]
        warnings.warn(
            f"{len(bad)} of {len(planned)} trials have no loss and take no part in the fits; "
            f"failed ones were tried {MAX_ATTEMPTS} times (retry_failed=True tries them again), "
            "diverged ones are not tried again:\n  " + "\n  ".join(lines),
            FlopsFitWarning,
            stacklevel=5,  # the call of find_optimal
        )


@contextlib.contextmanager
def _stated(ledger: Ledger) -> Iterator[None]:
    """The parent run shows whether the sweep is at work, done, or stopped."""
    tracking.set_parent_state(ledger, "running")
    try:
        yield
    except BaseException:
        with_timeout(PROMPT_S, lambda: tracking.set_parent_state(ledger, "planned"))
        raise
    tracking.set_parent_state(ledger, "complete")


def _progress(job: Job, runs: list[Run]) -> Progress:
    unit = job.params.get("data_unit", "tokens")
    return Progress(job.trials, _losses(job, runs), size_param=_size_param(job), data_unit=unit)


def _summary(job: Job, runs: list[Run]) -> str:
    losses = _losses(job, runs)
    spent = sum(trial.flops for trial in job.trials if trial.trial_id in losses)
    return summary(job.trials, losses, _size_param(job), spent)


def _losses(job: Job, runs: list[Run]) -> dict[str, float]:
    """Held-out loss of the planned trials that have ended, by id; NaN where they diverged."""
    planned = {trial.trial_id for trial in job.trials}
    ended = (run for run in latest_runs(runs) if run.state in ENDED)
    return {run.trial_id: run.loss for run in ended if run.trial_id in planned}


def _noting(job: Job, progress: Progress) -> Listener:
    """Passes events on to the bar, and now and then to the parent run."""
    noted = -math.inf

    def listen(event: Event) -> None:
        nonlocal noted
        progress(event)
        left = len(job.trials) - progress.num_ended
        if event.state in ENDED and (time.monotonic() - noted > _NOTE_S or not left):
            noted = time.monotonic()
            _note(job, progress.summary())

    return listen


def _note(job: Job, said: str) -> None:
    """Show on the parent run how far the sweep is; nobody waits long for that."""
    with_timeout(PROMPT_S, lambda: tracking.write_note(job.ledger, f"{said}\n\n{job.note}"))
