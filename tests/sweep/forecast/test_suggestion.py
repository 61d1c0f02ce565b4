"""Budgets for a time, on a machine whose speed is known."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from nets import MLP
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

import flops_fit
from flops_fit import Recipe, plan_sweep, suggest_budgets
from flops_fit.errors import ArgumentError, FitError, InfeasiblePlanError
from flops_fit.laws.design.simulation import BEYOND
from flops_fit.sweep.forecast import suggestion
from flops_fit.sweep.forecast.calibration import Calibration
from flops_fit.sweep.forecast.estimate import seconds_of

SIZES = [16, 64, 256, 1024]  # given, so that few are built
FIXED = Recipe(batch_size=8, max_epochs=1e12, pilot=False)
STEP_S, FLOPS_A_SECOND = 1e-3, 1e9


def machine(task, source, trials, recipe, processes, rounds):
    """Replaces `calibrate`: a step costs a millisecond and its FLOPs at a constant speed."""
    return Calibration(
        pd.DataFrame(
            {
                "flops_per_token": trial.flops_per_token,
                "batch_size": trial.batch_size,
                "round": turn,
                "seconds_per_step": STEP_S
                + trial.flops_per_token * trial.batch_size / FLOPS_A_SECOND,
                "start_s": 0.1,
                "held_out_s": math.nan if turn else 0.1,
            }
            for trial in trials
            for turn in range(rounds)
        ),
        "a machine",
        0.0,
        "estimated",
    )


def worth(runs, noise, num_sweeps):
    table = pd.DataFrame({"compute_budget": runs["compute_budget"].max() * np.array(BEYOND)})
    return type(
        "Expected", (), {"table": table.assign(extrapolation=BEYOND, factor=[1.2, 1.5, 2.25])}
    )


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(suggestion, "calibrate", machine)
    monkeypatch.setattr(suggestion, "expected_intervals", worth)


def examples(count):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, torch.arange(count) % 3)


def suggested(count=2000, **options):
    given = {"recipe": FIXED, "sizes": SIZES, **options}
    return suggest_budgets(MLP, "width", {}, examples(count), cross_entropy, **given)


@pytest.mark.parametrize(
    ("hours", "sizes"),
    [(0.5, SIZES), (2, SIZES), (20, SIZES), pytest.param(2, None, marks=pytest.mark.slow)],
)
def test_the_sweep_takes_the_time_that_there_is(hours, sizes):
    found = suggested(hours=hours, sizes=sizes)
    assert found.hours == pytest.approx(hours, rel=0.1)
    low, high = found.hours_interval
    assert low < found.hours < high
    assert len(found.compute_budgets) == 5
    assert 32 <= found.compute_budgets[-1] / found.compute_budgets[0] <= 105
    assert found.compute_budgets == [float(f"{C:.2g}") for C in found.compute_budgets]
    plan = plan_sweep(
        MLP, "width", {}, examples(2000), cross_entropy, found.compute_budgets, recipe=FIXED,
        sizes=sizes,
    )  # fmt: skip
    seconds = [t.steps * STEP_S + t.flops / FLOPS_A_SECOND for t in plan.trials]
    assert sum(seconds) == pytest.approx(3600 * found.hours, rel=0.2)
    assert min(trial.steps for trial in plan.trials) >= (200 if sizes else 1000)


def test_pilot_and_check_are_paid_from_the_same_time():
    found = suggested(hours=1, recipe=Recipe(max_epochs=1e12))
    assert found.hours == pytest.approx(1, rel=0.1)
    assert found.num_expected > 10
    assert f"and about {found.num_expected} to find and check the recipe" in repr(found)


def test_many_workers_share_the_time_and_the_price():
    one, four = suggested(hours=1), suggested(price=8, price_per_hour=2, workers=4)
    assert four.hours == pytest.approx(1, rel=0.1)
    assert four.cost == pytest.approx(8, rel=0.1)
    assert four.compute_budgets[-1] > 1.5 * one.compute_budgets[-1]
    assert math.isnan(one.cost)


@pytest.mark.parametrize(("workers", "gpus", "devices"), [(8, 1, 1), ("auto", 1, 1), (3, 2, 2)])
def test_workers_that_share_a_gpu_have_the_time_of_one(monkeypatch, workers, gpus, devices):
    expected = suggested(hours=1, workers=devices)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    found = suggested(hours=1, workers=workers)
    assert found.devices == devices
    assert found.compute_budgets == expected.compute_budgets


@pytest.mark.slow
def test_the_data_may_end_before_the_time():
    found = suggested(count=1_000_000, hours=1000, recipe=Recipe(batch_size=8, pilot=False))
    assert found.hours < 500
    (line,) = [line for line in found.remarks if "data end" in line]
    assert "need more than 4 epochs of the 950,000 training examples" in line
    plan = plan_sweep(
        MLP, "width", {}, examples(1_000_000), cross_entropy, found.compute_budgets,
        recipe=Recipe(batch_size=8, pilot=False), sizes=SIZES,
    )  # fmt: skip
    assert plan.compute_budgets == found.compute_budgets


def test_too_short_a_time_names_the_time_that_is_needed():
    with pytest.raises(InfeasiblePlanError, match="1 s is too short: the smallest sweep") as seen:
        suggested(hours=1 / 3600)
    assert "over a decade whose trials have 2" in str(seen.value)
    assert "takes about" in str(seen.value)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        pytest.param(
            None,
            r"a decade can be planned with about 3,000 training examples \(or Rec",
            marks=pytest.mark.slow,
        ),
        (SIZES, r"with Recipe\(.*\), budgets from"),
    ],
)
def test_too_few_data_for_a_decade_names_what_would_do(sizes, message):
    nothing = "no time would be long enough with this model and dataset: no .* can be planned.*:"
    with pytest.raises(InfeasiblePlanError, match=f"(?s){nothing}.*{message}"):
        suggested(count=1500, recipe=Recipe(batch_size=8, pilot=False), sizes=sizes)


def test_the_suggestion_as_text_and_html():
    found = suggested(hours=2, workers=2)
    head, _, *rows = repr(found).splitlines()
    listed = ", ".join(f"{C:.3g}" for C in found.compute_budgets)
    assert head == (
        f"BudgetSuggestion: compute_budgets=[{listed}] for 2 h on 2 devices (a machine)"
    )
    assert [row.split()[0] for row in rows[:5]] == [f"{C:.3g}" for C in found.compute_budgets]
    assert rows[5].startswith("expected time: ")
    assert "for 20 trials" in rows[5]
    assert "within a factor 1.5 at 10x" in rows[6]
    assert "within a factor 2.25 at 100x" in rows[6]
    html = found._repr_html_()
    assert html.count("<tr") == 6
    assert "expected time: " in html


def test_no_law_expected(monkeypatch):
    def none(*args, **options):
        raise FitError("no law")

    monkeypatch.setattr(suggestion, "expected_intervals", none)
    assert "no law can be expected of so small a sweep" in repr(suggested(hours=0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hours": -1}, "hours: expected a positive number, got -1"),
        ({"hours": 1, "price": 5, "price_per_hour": 1}, "price: hours is given too"),
        ({"price": 5}, "price_per_hour: missing"),
        ({"price": "much", "price_per_hour": 0}, "(?s)price: exp.*price_per_hour: expected a pos"),
        ({"workers": 0}, "workers: expected a positive whole number"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        suggested(**options)


def test_it_is_public():
    assert flops_fit.BudgetSuggestion is suggestion.BudgetSuggestion


def test_batches_that_a_pilot_may_make_smaller_take_longer():
    trials = plan_sweep(
        MLP, "width", {}, examples(2000), cross_entropy, [1e9], recipe=FIXED, sizes=SIZES
    ).trials
    table = machine(
        None, None, [replace(t, batch_size=b) for t in trials for b in (1, 8)], None, 1, 1
    )
    as_planned, doubt = seconds_of(table.table, trials)
    smaller, wider = seconds_of(table.table, trials, batch_open=True)
    assert (smaller > 1.2 * as_planned).all()
    assert (smaller < 4 * as_planned).all()
    assert wider > doubt + 0.1
