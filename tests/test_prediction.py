import math

import pytest
from planted import LAW, runs

from flops_fit.errors import ArgumentError, FitError
from flops_fit.prediction import Prediction
from flops_fit.result import fit


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


def test_a_ratio_far_from_those_trained_is_said(result):
    trained = result.runs["num_tokens"] / result.runs["num_params"]
    far = result.predict(1e14, tokens_per_param=3 * trained.max())
    assert [check.code for check in far.checks] == ["ratio-beyond-data"]
    assert result.predict(1e14, tokens_per_param=trained.max()).checks == ()
    (check,) = result.predict(1e14, inference_tokens=1e12).checks
    assert check.code == "ratio-beyond-data"


def test_a_prediction_reads_as_text(result):
    lines = str(result.predict(1e17)).splitlines()
    assert lines[0] == "1e+17 FLOPs, 1e+03 times the largest budget"
    assert lines[1].startswith("  parameters ")
    assert lines[-1].startswith("  warn: 1e+03 times the largest budget of the sweep.")


def test_unique_tokens(result):
    capped = result.predict(1e15, unique_tokens=1e6)
    assert capped.loss > result.predict(1e15).loss
    assert capped.loss_interval[0] < capped.loss < capped.loss_interval[1]


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
        ({"compute_budget": 1e3, "inference_tokens": 1e20}, "do not pay for"),
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
    with pytest.raises(FitError, match="no law stands"):
        found.predict(1e15, tokens_per_param=20)
