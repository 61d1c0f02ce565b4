"""A store and an archive that an earlier commit wrote, read by this one.

`stored/store.tar.gz` is a sweep of `helpers/stored_task.py` that was interrupted in its eighth
trial; `stored/store_losses.json` has the losses of the same sweep without the interruption.
"""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
import stored_task
import torch

import flops_fit
from flops_fit import tracking

STORED = Path(__file__).with_name("stored")


@pytest.fixture
def store(tmp_path) -> Path:
    """The stored store, moved to a folder of this test's own."""
    shutil.unpack_archive(STORED / "store.tar.gz", tmp_path, filter="data")
    with sqlite3.connect(tmp_path / "store" / "mlflow.db") as database:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, 'file:///store', ?)",
                [(tmp_path / "store").as_uri()],
            )
    database.close()
    return tmp_path / "store"


@pytest.mark.slow
def test_an_interrupted_sweep_is_resumed(store, capsys):
    uri = f"sqlite:///{store}/mlflow.db"
    before = tracking.fetch_all_runs(tracking.find_ledger("stored", uri))
    assert sorted(run.state for run in before) == ["complete"] * 7 + ["planned"]
    result = flops_fit.find_optimal(
        stored_task.Net, "width", dataset=stored_task.data(),
        loss_fn=torch.nn.functional.cross_entropy,
        compute_budgets=[1e5, 2e5, 4e5], sizes=[4, 8, 16, 32],
        recipe=flops_fit.Recipe(batch_size=10, max_epochs=1e9, learning_rate=0.01),
        name="stored", tracking_uri=uri, extend=False,
    )  # fmt: skip
    losses = json.loads((STORED / "store_losses.json").read_text())
    found = result.runs.set_index("trial_id")["loss"].to_dict()
    assert found == pytest.approx(losses, rel=1e-6)
    # Nothing ran twice: the finished trials and the interrupted one are still their old runs.
    after = tracking.fetch_all_runs(tracking.find_ledger("stored", uri))
    assert len(after) == 11
    assert {run.run_id for run in before} <= {run.run_id for run in after}

    # It was begun when the held-out examples were drawn at random, and its losses are of these.
    assert tracking.read_meta(tracking.find_ledger("stored", uri))["held_out"] == "random"
    assert "drawn at random, as when this sweep began" in capsys.readouterr().err


def test_a_sweep_of_another_name_in_the_same_store_holds_out_blocks(store):
    def planned(name):
        return flops_fit.plan_sweep(
            stored_task.Net, "width", dataset=stored_task.data(),
            loss_fn=torch.nn.functional.cross_entropy,
            compute_budgets=[1e5, 2e5, 4e5], sizes=[4, 8, 16, 32],
            recipe=flops_fit.Recipe(batch_size=10, max_epochs=1e9, learning_rate=0.01),
            name=name, tracking_uri=store / "mlflow.db",
        )  # fmt: skip

    old, new = planned("stored"), planned("new")
    assert "drawn at random" in old.data_notes[0]
    assert len(old.done) == 7
    assert "in 10 blocks of up to 2 examples" in new.data_notes[0]
    assert old.setting != new.setting
    assert not {trial.trial_id for trial in old.trials} & {trial.trial_id for trial in new.trials}


def test_an_archive_predicts_the_same():
    prediction = flops_fit.Result.load(STORED / "archive").predict(1e15)
    expected = json.loads((STORED / "archive_prediction.json").read_text())
    for name, value in expected.items():
        found = getattr(prediction, name)
        assert (list(found) if isinstance(found, tuple) else found) == value
