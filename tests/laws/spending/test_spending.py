"""Predictions for hours and for money, on runs of a planted law and a planted speed."""

from dataclasses import replace

import numpy as np
import pytest
from measures import measured_runs, seconds_per_token
from planted import LAW

from flops_fit.errors import ArgumentError, FitError
from flops_fit.result import fit


def best_in(seconds):
    """N, D and loss of the planted optimum for a time."""
    N = np.geomspace(1e2, 1e9, 100_001)
    D = seconds / seconds_per_token(N)
    best = LAW.loss(N, D).argmin()
    return N[best], D[best], LAW.loss(N[best], D[best])


@pytest.fixture(scope="module")
def result():
    return fit(measured_runs(), metrics=["accuracy"], num_draws=100)


@pytest.mark.parametrize("hours", [0.03, 0.3, 3.0])
def test_the_intervals_hold_the_planted_optimum(result, hours):
    found = result.predict(hours=hours)
    truths = best_in(3600 * hours)
    for name, truth in zip(("num_params", "num_tokens", "loss"), truths, strict=True):
        low, high = getattr(found, f"{name}_interval")
        assert low <= truth <= high, name
    assert found.num_params == pytest.approx(truths[0], rel=0.15)
    seconds = found.num_tokens * seconds_per_token(found.num_params)
    assert seconds == pytest.approx(3600 * hours, rel=0.1)
    assert found.spending.hours == hours


def test_the_time_optimum_is_larger_than_the_compute_optimum_and_better(result):
    found = result.predict(hours=0.3)
    size, loss = found.spending.compute_optimal
    assert found.num_params > 1.2 * size
    assert found.loss < loss + 1e-3
    assert LAW.n_opt(found.compute_budget) < found.num_params


def test_money_buys_hours_of_devices(result):
    bought = result.predict(price=12, price_per_hour=2, devices=3)
    alone = result.predict(hours=6)
    assert bought.spending.hours == pytest.approx(2)
    assert bought.spending.price == 12
    assert bought.num_params == pytest.approx(alone.num_params)
    assert bought.spending.tokens_per_second == pytest.approx(3 * alone.spending.tokens_per_second)
    assert result.predict(hours=6, price_per_hour=2).spending.price == pytest.approx(12)


def test_what_is_assumed_is_said(result):
    codes = [check.code for check in result.predict(hours=30, devices=8, anyway=True).checks]
    assert "scaling-assumed" in codes
    assert "speed-extrapolated" in codes
    near = result.predict(hours=0.1).checks
    assert not {"scaling-assumed", "speed-extrapolated"} & {check.code for check in near}


def test_it_reads_as_text(result):
    lines = str(
        result.predict(hours=2, devices=2, price_per_hour=1.5, metric="accuracy")
    ).splitlines()
    assert lines[0].startswith("2 h on 2 devices for 6: ")
    assert any("tokens a second" in line for line in lines)
    assert any(
        line.strip().startswith("the compute-optimal model that trains as long") for line in lines
    )
    assert any(line.strip().startswith("accuracy") for line in lines)
    assert "2 h on 2 devices" in result.predict(hours=2, devices=2)._repr_html_()


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({}, ["expected one of compute_budget, hours and price, got none"]),
        (
            {"hours": -1, "price": 3, "devices": 0, "tokens_per_param": -2},
            [
                "got hours, price",
                "hours: expected a positive number, got -1",
                "price_per_hour: expected the price of one device",
                "devices: expected a positive whole number, got 0",
                "tokens_per_param: expected a positive number, got -2",
                "tokens_per_param: goes with compute_budget",
            ],
        ),
        ({"compute_budget": 1e14, "devices": 8}, ["devices: goes with hours or price"]),
        (
            {"compute_budget": 0, "price_per_hour": 1},
            ["compute_budget: expected a positive number, got 0", "price_per_hour: goes with"],
        ),
    ],
)  # fmt: skip
def test_all_faults_are_told_at_once(result, given, problems):
    with pytest.raises(ArgumentError) as told:
        result.predict(**given)
    for problem in problems:
        assert problem in str(told.value)


def test_runs_without_times_are_refused(result):
    runs = result.runs.assign(wall_time_s=np.nan)
    untimed = replace(result, findings=replace(result.findings, runs=runs))
    with pytest.raises(FitError, match="no run has its time: expected a column of seconds"):
        untimed.predict(hours=1)
