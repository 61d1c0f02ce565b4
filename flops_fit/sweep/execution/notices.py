"""What the user reads at the end of a sweep: how to resume it, and which trials failed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from flops_fit import tracking
from flops_fit.display.notebook import tell
from flops_fit.records import Run
from flops_fit.store.retry import with_timeout
from flops_fit.store.uri import without_credentials
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.execution.status import MAX_ATTEMPTS, done_in_words
from flops_fit.tracking.outbox import PROMPT_S
from flops_fit.tracking.queries import latest_runs
from flops_fit.warn import warn_user


@contextlib.contextmanager
def how_to_resume(job_now: Callable[[], Job]) -> Iterator[None]:
    """After Ctrl-C or SIGTERM in this block, say what is done and how to go on.

    `KeyboardInterrupt` carries the message as the last line of its short traceback. Before
    `SystemExit` it is printed.

    Args:
        job_now: Gives the job as it has grown by then.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_resume_message(job_now())) from None
    except SystemExit:
        tell(_resume_message(job_now()))
        raise


def _resume_message(job: Job) -> str:
    where = without_credentials(job.ledger.tracking_uri)
    runs = with_timeout(5 * PROMPT_S, lambda: tracking.fetch_all_runs(job.ledger, job.setting))
    if runs is None:
        done = f"{where} does not answer; finished work is kept here and sent to it later"
    else:
        done = f"{done_in_words(job, runs)} and kept in {where}"
    return f"Stopped: {done}. Run the same again to continue"


def warn_of_failures(job: Job, runs: list[Run]) -> None:
    """Warn of planned trials that have no loss, with the reason of each."""
    planned = job.trial_ids
    failed = [
        run for run in latest_runs(runs) if run.trial_id in planned and run.state != "complete"
    ]
    if failed:
        lines = [
            f"C={run.compute_budget:.3g} {job.size_param}={run.size}: {run.excluded}"
            for run in failed
        ]
        warn_user(
            f"{len(failed)} of {len(planned)} trials have no loss and take no part in the fits; "
            f"failed ones were tried {MAX_ATTEMPTS} times (retry_failed=True tries them again), "
            "diverged ones are not tried again:\n  " + "\n  ".join(lines)
        )
