"""A sweep with a goal whose drivers are killed between and within its rounds."""

import random
import signal
import sys
from pathlib import Path

import goal_sweep
import pytest
from processes import wait_until

import flops_fit
from flops_fit import tracking

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DRIVER = Path(goal_sweep.__file__)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_sweep_with_a_goal_survives_strikes_in_its_rounds(store, start, seed, monkeypatch):
    """Every trial is trained once, but for those in flight, and the answer becomes precise."""
    rng = random.Random(seed)
    for _ in range(4):
        before = len(goal_sweep.trained(store))
        driver = start(sys.executable, DRIVER, store, 0.2, cwd=store)
        wanted = before + rng.randint(3, 9)
        wait_until(
            lambda driver=driver, wanted=wanted: (
                len(goal_sweep.trained(store)) >= wanted or driver.poll() is not None
            ),
            driver,
        )
        driver.send_signal(rng.choice(SIGNALS))
        driver.finish()
    monkeypatch.chdir(store)
    monkeypatch.setattr("flops_fit.sweep.execution.worker.train", None)  # set again by `run`
    result = goal_sweep.run(store)
    low, high = result.predict(goal_sweep.TARGET).num_params_interval
    assert high / low <= goal_sweep.UNTIL * 1.05  # with more bootstrap draws than in a round
    _assert_each_once(store, result)


def _assert_each_once(store: Path, result: flops_fit.Result) -> None:
    ledger = tracking.find_ledger("planted", f"sqlite:///{store}/mlflow.db")
    done = [r for r in tracking.trial_runs(ledger) if r.data.tags[tracking.STATE] == "complete"]
    ids = [run.data.tags[tracking.TRIAL_ID] for run in done]
    assert len(ids) == len(set(ids)) == len(result.runs)
    assert set(goal_sweep.trained(store)) == set(ids)
