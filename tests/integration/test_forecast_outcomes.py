"""A forecast from real training, and the training that it is a forecast of."""

from pathlib import Path

import pytest
from sweeps import real_sweep, sweep

import flops_fit
from flops_fit import prepare
from flops_fit.sweep.data.held_out import RANDOM

BUDGETS = [1e5, 2e5, 4e5]


def test_a_forecast_is_scored_by_the_run_that_comes(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Twenty held-out examples carry a law by chance only: with these they do.
    monkeypatch.setattr(prepare, "_rule_of_sweep", lambda task, address, twins=None: RANDOM)
    before = real_sweep(store, extend=False)
    last = before.runs[before.runs["size"] == 8].iloc[-1]
    N, D = float(last["num_params"]), 2 * float(last["num_tokens"])
    made = before.forecast(num_params=N, num_tokens=D, note="twice the tokens")
    assert Path(made.artifact).is_file()
    recipe = flops_fit.Recipe(batch_size=8, max_epochs=1e9, pilot=False)
    after = sweep(store, [*BUDGETS, 8e5], sizes=[2, 4, 8, 16], recipe=recipe, extend=False)
    (row,) = after.forecasts.to_dict("records")
    came = after.runs[(after.runs["size"] == 8) & (after.runs["compute_budget"] == 8e5)]
    assert row["status"] == "scored"
    assert row["outcome"] == pytest.approx(came["loss"].item(), rel=0.05)
    assert row["inside_run"] is (made.run_interval[0] <= row["outcome"] <= made.run_interval[1])
    scored = flops_fit.score("forecasts", after)
    assert scored["outcome"].tolist() == after.forecasts["outcome"].tolist()
    assert "Forecasts: " in repr(flops_fit.analyze("planted", f"sqlite:///{store}/mlflow.db"))
