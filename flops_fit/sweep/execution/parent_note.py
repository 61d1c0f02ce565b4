"""The parent run shows whether the sweep is running, and how far it is."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

from flops_fit import tracking
from flops_fit.records import Event, Listener, Run
from flops_fit.store.retry import with_timeout
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.execution.progress import Progress, summary
from flops_fit.sweep.execution.status import ended_losses
from flops_fit.tracking.ledger import ENDED, Ledger
from flops_fit.tracking.outbox import PROMPT_S

_NOTE_EVERY_S = 15.0  # least time between two notes while trials end


@contextlib.contextmanager
def state_shown(ledger: Ledger) -> Iterator[None]:
    """Set the parent run's state: running inside the block, then complete; planned on error."""
    tracking.set_parent_state(ledger, "running")
    try:
        yield
    except BaseException:
        with_timeout(PROMPT_S, lambda: tracking.set_parent_state(ledger, "planned"))
        raise
    tracking.set_parent_state(ledger, "complete")


def with_notes(job: Job, progress: Progress) -> Listener:
    """A listener that passes events to `progress`, and now and then writes it on the parent run."""
    last_note = -math.inf

    def listen(event: Event) -> None:
        nonlocal last_note
        progress(event)
        all_ended = progress.num_ended == len(job.trials) and not job.to_come
        is_due = time.monotonic() - last_note > _NOTE_EVERY_S
        if event.state in ENDED and (is_due or all_ended):
            last_note = time.monotonic()
            _write(job, progress.summary())

    return listen


def write_summary(job: Job, runs: list[Run]) -> None:
    """Write on the parent run how far the sweep is, by these runs."""
    losses = ended_losses(job, runs)
    spent = sum(trial.flops for trial in job.trials if trial.trial_id in losses)
    text = summary(
        job.trials,
        losses,
        job.size_param,
        spent,
        to_come=job.to_come,
        num_examples=job.num_examples,
    )
    _write(job, text)


def _write(job: Job, progress_text: str) -> None:
    """Write the MLflow description of the parent run, unless the server takes too long."""
    note = f"{progress_text}\n\n{job.note}"
    with_timeout(PROMPT_S, lambda: tracking.write_note(job.ledger, note))
