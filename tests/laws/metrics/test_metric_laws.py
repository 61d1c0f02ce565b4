"""Laws of metrics, from tables of runs to predictions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from measures import accuracy, error, measured_runs
from planted import LAW

from flops_fit.errors import ArgumentError, FitError, TableError
from flops_fit.laws.metrics.columns import MetricColumn
from flops_fit.laws.metrics.fit import limits_of
from flops_fit.result import Result, fit

METRICS = ["accuracy", "error", "perplexity_c4", "coin"]
TRUTHS = {
    "accuracy": accuracy,
    "error": error,
    "perplexity_c4": lambda loss: np.exp(loss + 0.1),
}


@pytest.fixture(scope="module")
def result():
    return fit(measured_runs(), metrics=METRICS, num_draws=100)


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize("C", [1e14, 1e15, 1e16])
def test_the_interval_holds_the_truth(result, name, C):
    metric = result.predict(C, metric=name).metric
    truth = TRUTHS[name](LAW.l_opt(C))
    low, high = metric.interval
    assert low <= truth <= high
    assert low <= metric.value <= high
    assert metric.new_run_interval[0] <= low
    assert metric.new_run_interval[1] >= high


def test_a_metric_reads_as_text_and_html(result):
    prediction = result.predict(1e15, metric="accuracy")
    lines = str(prediction).splitlines()
    assert any(line.startswith("  accuracy   0.") and "(95 %: 0." in line for line in lines)
    assert any("accuracy by" in line and "one run 0." in line for line in lines)
    assert "<td" in prediction._repr_html_()
    assert "accuracy" in prediction._repr_html_()
    assert result.predict(1e15).metric is None


def test_noise_is_refused_and_said(result):
    with pytest.raises(FitError, match="no forecast of the metric 'coin': the runs show no trend"):
        result.predict(1e15, metric="coin")
    (check,) = [check for check in result.checks if check.code == "metric-refused"]
    assert "'coin'" in check.message
    assert check.severity == "warn"


def test_an_unknown_metric_is_refused_with_those_known(result):
    with pytest.raises(ArgumentError, match="got 'acc': accuracy, error, perplexity_c4, coin"):
        result.predict(1e15, metric="acc")
    without = replace(result, findings=replace(result.findings, metrics={}))
    with pytest.raises(ArgumentError, match="none: pass find_optimal"):
        without.predict(1e15, metric="accuracy")


def test_the_table_has_each_forecast(result):
    table = result.chinchilla_table([1e14, 1e15])
    for name in TRUTHS:
        row = table.iloc[1]
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
        metric = result.predict(1e15, metric=name).metric
        assert row[name] == pytest.approx(metric.value)
    assert not {"coin", "coin_low"} & set(table.columns)
    assert "accuracy, 95 %" in result._repr_html_()


def test_constraints_move_the_metric(result):
    plain = result.predict(1e15, metric="accuracy").metric.value
    over = result.predict(1e15, tokens_per_param=1000, metric="accuracy").metric.value
    repeated = result.predict(1e15, unique_tokens=3e6, metric="accuracy").metric
    assert over < plain
    assert repeated.value < plain
    assert all("the loss" in form for form in repeated.approaches)


def test_a_saved_result_predicts_the_same(result, tmp_path):
    result.save(tmp_path)
    loaded = Result.load(tmp_path)
    for name in TRUTHS:
        assert loaded.predict(1e16, metric=name) == result.predict(1e16, metric=name)
    assert loaded.findings.metrics["coin"].refused == result.findings.metrics["coin"].refused
    pd.testing.assert_frame_equal(
        loaded.findings.metrics["error"].backtest, result.findings.metrics["error"].backtest
    )


def test_metrics_change_nothing_else(result):
    plain = fit(measured_runs(), num_draws=100)
    assert plain.law == result.law
    assert plain.predict(1e15) == result.predict(1e15)


@pytest.mark.parametrize(
    ("metrics", "problem"),
    [
        (["acuracy"], "metrics: the table has no column 'acuracy'"),
        (["loss"], "metrics: 'loss' is a column of the laws"),
        ({"accuracy": (1, 0)}, "expected the bounds"),
    ],
)
def test_wrong_metrics_are_refused(metrics, problem):
    with pytest.raises(ArgumentError, match=problem):
        fit(measured_runs(), metrics=metrics)


def test_a_cell_that_is_no_number_is_a_fault_and_an_empty_one_is_none():
    table = measured_runs()
    table["accuracy"] = table["accuracy"].astype(object)
    table.loc[3, "accuracy"] = "good"
    with pytest.raises(TableError, match="row 3: accuracy is not a number: 'good'"):
        fit(table, metrics=["accuracy"])
    table.loc[3, "accuracy"] = None
    law = fit(table, metrics=["accuracy"], num_draws=100).findings.metrics["accuracy"]
    assert law.num_runs == len(table) - 1


def test_bounds_may_be_given():
    table, scale = measured_runs(), 100.0
    table["eval_accuracy"] = scale * table["accuracy"]
    found = fit(
        table.drop(columns="accuracy"), metrics={"accuracy": (0, scale)}, num_draws=100
    ).predict(1e16, metric="accuracy")
    assert found.metric.value == pytest.approx(scale * accuracy(LAW.l_opt(1e16)), rel=0.1)
    assert found.metric.interval[1] <= scale


@pytest.mark.parametrize(
    ("name", "scale", "bounds"),
    [
        ("accuracy", 1.0, (0.0, 1.0)),
        ("top1_acc", 100.0, (0.0, 100.0)),
        ("top1 %", 100.0, (0.0, 100.0)),
        ("score", 100.0, (-np.inf, np.inf)),
        ("acc", 1000.0, (-np.inf, np.inf)),
    ],
)
def test_the_bounds_of_shares_and_percentages(name, scale, bounds):
    values = scale * np.linspace(0.3, 0.8, 12)
    found = limits_of(values, -values, MetricColumn(name, name))
    assert (found.low, found.high) == bounds


def test_values_outside_the_bounds_given_are_refused():
    found = fit(measured_runs(), metrics={"accuracy": (0.0, 0.01)}, num_draws=100)
    with pytest.raises(FitError, match="lie outside its bounds"):
        found.predict(1e15, metric="accuracy")


def test_a_name_that_is_none_is_an_argument_error(result):
    with pytest.raises(ArgumentError, match=r"got \['accuracy'\]"):
        result.predict(1e15, metric=["accuracy"])
