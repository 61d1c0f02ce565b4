import math
from dataclasses import replace
from html import unescape
from itertools import pairwise

import numpy as np
import pytest
from planted import LAW, measured, runs

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.predict.prediction import Prediction
from flops_fit.result import Result, fit


@pytest.fixture(scope="module")
def result():
    return fit(runs())


def test_prediction(result):
    prediction = result.predict(1e16)
    assert isinstance(prediction, Prediction)
    row = result.chinchilla_table([1e16]).iloc[0]
    assert prediction.num_params == row["num_params"]
    assert prediction.loss_interval == (row["loss_low"], row["loss_high"])
    assert prediction.extrapolation == pytest.approx(100)
    low, high = prediction.new_run_interval
    assert low < prediction.loss_interval[0]
    assert high > prediction.loss_interval[1]
    assert prediction.tokens_per_param == pytest.approx(
        prediction.num_tokens / prediction.num_params
    )
    assert [check.code for check in result.predict(1e17).checks] == ["far-extrapolation"]


def test_over_training(result):
    plain, over = result.predict(1e14), result.predict(1e14, tokens_per_param=500)
    assert over.tokens_per_param == pytest.approx(500)
    assert over.loss > plain.loss
    served = result.predict(1e14, inference_tokens=1e8)
    assert served.num_params < plain.num_params
    spent = 6 * served.num_params * served.num_tokens + 2 * served.num_params * 1e8
    assert spent == pytest.approx(1e14)


def test_a_ratio_far_from_those_trained_warns(result):
    trained = result.runs["num_tokens"] / result.runs["num_params"]
    far = result.predict(1e14, tokens_per_param=3 * trained.max())
    assert [check.code for check in far.checks] == ["ratio-beyond-data"]
    assert result.predict(1e14, tokens_per_param=trained.max()).checks == ()
    (check,) = result.predict(1e14, inference_tokens=1e12).checks
    assert check.code == "ratio-beyond-data"


def test_a_prediction_reads_as_text(result):
    lines = str(result.predict(1e17)).splitlines()
    assert lines[0] == "1e+17 FLOPs, 1,000 times the largest budget"
    assert lines[1].startswith("  parameters ")
    assert lines[-1].startswith("  warn: the budget is 1,000 times the largest one")


def test_unique_tokens(result):
    capped = result.predict(1e15, unique_tokens=1e6)
    assert capped.loss > result.predict(1e15).loss
    assert capped.loss_interval[0] < capped.loss < capped.loss_interval[1]


@pytest.mark.slow
@pytest.mark.parametrize("table", [runs, measured])
def test_a_cap_that_does_not_bind_changes_nothing_and_begins_to_bind_without_a_step(table):
    found = fit(table())
    free = found.predict(1e15)
    assert found.predict(1e15, unique_tokens=1e15) == free
    at = free.num_tokens * np.geomspace(1.3, 0.8, 61)
    around = [found.predict(1e15, unique_tokens=float(U)) for U in at]
    ends = np.array([(p.num_params, *p.num_params_interval, *p.loss_interval) for p in around])
    assert np.abs(np.diff(np.log(ends), axis=0)).max() < 0.003
    assert around[0].num_params == free.num_params
    assert around[-1].loss > free.loss


def test_fewer_unique_tokens_raise_the_loss_and_warn(result):
    free = result.predict(1e15)
    predictions = [
        result.predict(1e15, unique_tokens=free.num_tokens / k) for k in (3, 30, 300, 3e3, 3e4)
    ]
    losses = [p.loss for p in predictions]
    assert all(b > a for a, b in pairwise(losses))
    assert all(
        p.num_params_interval[0] < p.num_params < p.num_params_interval[1] for p in predictions
    )
    codes = [[check.code for check in p.checks if check.severity == "warn"] for p in predictions]
    assert codes == [[], [], *[["data-worn-out"]] * 3]
    with pytest.raises(ArgumentError, match=r"unique_tokens: .* are too few"):
        result.predict(1e15, unique_tokens=free.num_tokens / 3e6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute_budget": -1}, "compute_budget: expected a positive number, got -1"),
        ({"compute_budget": math.nan}, "expected a positive number"),
        ({"compute_budget": "1e16"}, "expected a positive number"),
        ({"compute_budget": 1e16, "tokens_per_param": 0}, "tokens_per_param"),
        (
            {"compute_budget": 1e16, "tokens_per_param": 20, "inference_tokens": 1e9},
            "give one of tokens_per_param, inference_tokens",
        ),
        ({"compute_budget": 1e3, "inference_tokens": 1e20}, "are too few for"),
    ],
)
def test_arguments_of_predict(result, options, message):
    with pytest.raises(ArgumentError, match=message):
        result.predict(**options)


def test_isoflop_alone_predicts_without_intervals():
    table = runs()
    table.loc[3, "loss"] = 1e9
    found = fit(table)
    assert found.law is None
    prediction = found.predict(1e15)
    assert prediction.num_params == pytest.approx(LAW.n_opt(1e15), rel=0.2)
    assert math.isnan(prediction.loss_interval[0])
    assert [(check.code, check.severity) for check in prediction.checks] == [
        ("no-parametric-law", "warn")
    ]
    with pytest.raises(FitError, match="without an interval"):
        found.predict(1e18)
    with pytest.raises(FitError, match="no law could be fitted"):
        found.predict(1e15, tokens_per_param=20)


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({}, ["tokens per parameter", "size 3"]),
        ({"data_unit": "examples"}, ["examples per parameter"]),
        ({"size_param": "d_model"}, ["d_model 3"]),
        ({"size_param": "<i>", "data_unit": "<b>"}, ["&lt;b&gt; per parameter", "&lt;i&gt; 3"]),
    ],
)
def test_a_notebook_shows_a_prediction_as_a_table_in_the_users_words(result, meta, words):
    found = Result(replace(result.findings, meta=meta, build_size=lambda N: 3))
    page = found.predict(1e17)._repr_html_()
    assert page.count("<tr>") == 5
    assert "<b>warn</b> the budget is" in page
    for word in words:
        assert word in page
        assert unescape(word) in repr(found.predict(1e17))
