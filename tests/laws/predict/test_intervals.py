import math
from dataclasses import replace

import numpy as np
import pytest
from planted import BUDGETS, runs

from flops_fit.errors import FitError
from flops_fit.laws.model.frontier import frontier
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.predict.paths import Terms, repetition_law
from flops_fit.result import Result, fit


@pytest.fixture(scope="module")
def result():
    return fit(runs())


def test_given_terms():
    assert Terms().given == {}
    assert Terms(inference_tokens=1e9).given == {"inference_tokens": 1e9}


def test_middle_lies_inside_its_interval(result):
    frame = predict_intervals(result.findings, BUDGETS)
    # The IsoFLOP rows count too, but little where the law holds.
    np.testing.assert_allclose(frame["num_params"], result.law.n_opt(BUDGETS), rtol=0.005)
    for name in ("num_params", "num_tokens", "loss"):
        assert (frame[f"{name}_low"] < frame[name]).all()
        assert (frame[name] < frame[f"{name}_high"]).all()
    assert (frame["new_run_low"] < frame["loss_low"]).all()


def test_published_constants_where_no_data_was_repeated(result):
    law = repetition_law(result.findings)
    assert (law.r_data, law.r_params, law.fading_error) == (15.39, 5.31, None)
    assert law.law == result.law


def test_no_loss_lies_below_what_the_law_allows():
    small_floor = ParametricLaw(0.1, 66.0, 100.0, 0.35, 0.30)
    found = fit(runs(0.03, seed=2, law=small_floor), form="five")
    findings, C = found.findings, np.array([1e20, 1e24])
    low, _ = findings.interval(lambda laws: frontier(laws, C, findings.cost)[2])
    assert (low < 0).all()
    assert (predict_intervals(findings, C)["loss_low"] == findings.least_loss).all()
    assert findings.least_loss >= 0
    assert (predict_intervals(findings, C)["new_run_low"] == 0).all()


def test_losses_of_any_sign_have_no_floor():
    lifted = fit(runs().assign(loss=runs()["loss"] - 3.0))
    assert lifted.findings.least_loss == -math.inf
    assert (predict_intervals(lifted.findings, BUDGETS)["loss_low"] < 0).any()


def test_far_table_without_intervals_is_refused(result):
    alone = Result(replace(result.findings, law=None))
    assert alone.chinchilla_table([1e16])["loss_low"].isna().all()
    with pytest.raises(FitError, match="without an interval"):
        alone.chinchilla_table([1e13, 1e20])


LAW = ParametricLaw(1.82, 480.0, 2100.0, 0.35, 0.37)


def two_digits(values):
    return np.array([float(f"{value:.1e}") for value in values])


def nominal(seed):
    """35 runs whose N and D have two digits, with the label of their row as C."""
    table = runs(seed=seed, law=LAW)
    return table.assign(
        num_params=two_digits(table["num_params"]), num_tokens=two_digits(table["num_tokens"])
    )


def scattered(seed):
    """35 runs of models that cost 3 % more or less than 6 N."""
    table = runs(seed=seed, law=LAW)
    flops = table["flops"] * np.exp(np.random.default_rng(seed).normal(0, 0.03, len(table)))
    return table.assign(flops=flops, compute_budget=flops)


def mistyped(seed):
    """35 runs, of which one has ten times its FLOPs."""
    table = runs(seed=seed, law=LAW)
    flops = table["flops"].where(table.index != 17, 10 * table["flops"])
    return table.assign(flops=flops, compute_budget=flops)


@pytest.mark.slow
@pytest.mark.parametrize("table", [nominal, scattered, mistyped])
def test_costs_at_fault_leave_the_optimum_where_it_is(table):
    truth = LAW.n_opt(BUDGETS)
    covered = 0
    for seed in range(4):
        found = fit(table(seed), num_draws=100)
        frame = predict_intervals(found.findings, BUDGETS)
        assert np.abs(np.log(frame["num_params"] / truth)).max() < 0.15
        inside = (frame["num_params_low"] <= truth) & (truth <= frame["num_params_high"])
        covered += int(inside.sum())
    assert covered >= 18


def test_scatter_of_the_cost_widens_the_interval_of_tokens():
    exact = fit(runs(law=LAW), num_draws=100).predict(BUDGETS[-1])
    noisy = fit(scattered(0), num_draws=100)
    assert noisy.findings.cost.scatter == pytest.approx(0.03, rel=0.5)
    low, high = noisy.predict(BUDGETS[-1]).num_tokens_interval
    assert np.log(high / low) > 1.96 * 2 * noisy.findings.cost.scatter
    assert "cost-scatter" in [check.code for check in noisy.checks]
    assert exact.num_tokens_interval[1] / exact.num_tokens_interval[0] < high / low
