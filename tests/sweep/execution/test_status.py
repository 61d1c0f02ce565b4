"""What counts as missing, claimed or dead."""

from sweeps import SmallSweep

from flops_fit import tracking
from flops_fit.store.client import client_of
from flops_fit.sweep.execution import status, trial_queue
from flops_fit.tracking import journal


def test_a_run_whose_claim_has_lapsed_is_closed_and_its_trial_run_again(
    finished: SmallSweep, planted
):
    """As when a worker on another host, which only its heartbeat shows to live, is gone."""
    client = client_of(finished.uri)
    lost = finished.runs()[0].run_id
    client.set_tag(lost, tracking.STATE, "running")
    client.set_tag(lost, tracking.WORKER, "elsewhere|123|1.00|abcdef01")
    client.update_run(lost, status="RUNNING")
    again = finished.run()
    assert {run.state for run in again} == {"complete"}
    assert lost not in {run.run_id for run in again}
    assert client.get_run(lost).info.status == "KILLED"
    assert len(planted.trained) == 1


def test_a_checkpoint_left_by_a_worker_killed_after_its_trials_end_is_removed(
    finished: SmallSweep, planted
):
    ended = finished.folder / "checkpoints" / f"{finished.runs()[0].trial_id}-0"
    of_another_sweep = finished.folder / "checkpoints" / f"{'0' * 16}-0"
    for folder in (ended, of_another_sweep):
        folder.mkdir(parents=True)
        (folder / "state.json").touch()
    finished.run()
    assert planted.trained == []
    assert not ended.exists()
    assert of_another_sweep.exists()


def test_a_trial_whose_end_is_in_the_journal_is_neither_enqueued_nor_unclaimed(small: SmallSweep):
    job = small.open()
    study = trial_queue.open_study(job.study_name, job.storage)
    first, *others = job.trials
    written = journal.create(job.journal_folder, first.trial_id, "cd" * 8)
    assert status.claimed(job, study) == {first.trial_id}
    assert status.without_record_in_journal(job, job.trials) == others
    written.remove()
    assert status.claimed(job, study) == set()


def test_a_worker_waits_for_the_driver_to_enqueue_and_then_gives_up(
    small: SmallSweep, monkeypatch, caplog
):
    caplog.set_level("INFO", "flops_fit")
    monkeypatch.setattr(status, "BEGIN_S", 0.2)
    monkeypatch.setattr(status, "PAUSE_S", 0.05)
    job = small.open()
    study = trial_queue.open_study(job.study_name, job.storage)
    assert status.count_waiting(job, study) == 0
    assert caplog.messages == [
        "8 trials are not queued yet, and no worker trains them: waiting 0.2 s for a driver"
    ]
    trial_queue.enqueue(study, job.trials[:3])
    assert status.count_waiting(job, study) == 3


def test_the_trials_of_other_drivers_are_waited_for_and_that_is_said(
    small: SmallSweep, monkeypatch, caplog
):
    job = small.open()
    study = trial_queue.open_study(job.study_name, job.storage)
    claimed = iter([{job.trials[0].trial_id}] * 3)
    monkeypatch.setattr(status, "claimed", lambda *_: next(claimed, set()))
    monkeypatch.setattr(status, "OTHERS_PAUSE_S", 0.0)
    status.wait_for_others(job, study)
    assert caplog.messages == ["other processes still train 1 trial of this plan: waiting for them"]
