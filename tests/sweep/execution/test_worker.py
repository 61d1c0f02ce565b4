"""One worker: how a trial is resumed, and what becomes of it when something breaks."""

import signal

import numpy as np
import pytest
import sweeps
import torch
from sweeps import SmallSweep

import flops_fit
from flops_fit import tracking
from flops_fit.store.client import client_of
from flops_fit.sweep.execution import progress, worker


@pytest.mark.slow
def test_an_interrupted_trial_goes_on_in_its_own_run(store, monkeypatch):
    """From the step where it stopped, and its training curve without a gap."""
    recipe = flops_fit.Recipe(batch_size=8, max_epochs=1e9, pilot=False)
    real = SmallSweep(store, budgets=(4e5,), sizes=(2, 4, 8, 16), recipe=recipe)
    stopped = []

    def report_and_interrupt(job, event, attempt, listener):
        report = reporter(job, event, attempt, listener)

        def interrupting(point):
            report(point)
            if not stopped and point.num_tokens > 1000:
                stopped.append(event.trial_id)
                signal.raise_signal(signal.SIGINT)

        return interrupting

    reporter = worker._reporter
    monkeypatch.setattr(worker, "_reporter", report_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        real.run()
    (trial_id,) = stopped

    def run_of_the_trial():
        runs = tracking.trial_runs(real.ledger)
        (run,) = (run for run in runs if run.data.tags[tracking.TRIAL_ID] == trial_id)
        return run

    before = run_of_the_trial()
    assert before.info.status == "KILLED"
    finished = {run.trial_id: run for run in real.run()}
    after = run_of_the_trial()
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    curve = client_of(real.uri).get_metric_history(after.info.run_id, "train_loss")
    steps = [point.step for point in curve]
    assert len(set(steps)) == len(steps)
    assert max(np.diff(sorted(steps))) <= finished[trial_id].num_tokens / 50


@pytest.mark.slow
def test_a_trial_begun_by_other_code_starts_over(
    small: SmallSweep, planted, train_with, monkeypatch, caplog
):
    had_checkpoint = []

    def interrupt_the_first(trial, keeper):
        had_checkpoint.append((trial.trial_id, keeper.exists()))
        if len(had_checkpoint) == 1:
            keeper.save(1, {"weight": torch.zeros(1)})
            raise KeyboardInterrupt

    train_with(interrupt_the_first)
    with pytest.raises(KeyboardInterrupt):
        small.run()
    first, _ = had_checkpoint[0]
    monkeypatch.setattr(sweeps, "GAIN", 2.0)
    small.run()
    assert dict(had_checkpoint[1:])[first] is False
    assert "was written by other code" in caplog.text
    assert not any((small.folder / "checkpoints").glob("*"))


def test_a_fault_as_a_trial_is_taken_up_again_fails_it_and_leaves_nothing_to_wait_for(
    small: SmallSweep, planted, monkeypatch
):
    def deaf(self, event):
        if event.state == "resumed":
            raise BrokenPipeError("nobody listens")

    monkeypatch.setattr(worker.Keeper, "exists", lambda self: True)
    monkeypatch.setattr(progress.Progress, "__call__", deaf)
    monkeypatch.setenv("FLOPS_FIT_TIMEOUT", "5")
    with pytest.raises(
        flops_fit.FlopsFitError, match=r"first \d+ trials all failed.*nobody listens"
    ):
        small.run()
    assert not [path for path in small.folder.glob("spool/*/*") if path.is_file()]
