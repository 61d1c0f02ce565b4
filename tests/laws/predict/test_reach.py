import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import runs

from flops_fit import fit
from flops_fit.errors import FitError
from flops_fit.laws.check import Check
from flops_fit.laws.checks.of_predictions import NOT_RELIABLE
from flops_fit.laws.predict.reach import is_vague, reach, require_reach

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def result():
    return fit(runs(), num_draws=100)


@pytest.fixture(scope="module")
def narrow():
    """Real runs of three budgets within a factor of five: N is hardly known far above them."""
    table = pd.read_csv(ROOT / "examples" / "runs.csv")
    return fit(table[table["C"] > 1.5e10], num_draws=100)


def test_a_thousand_times_is_predicted_and_more_is_refused(result):
    largest = result.largest_budget
    assert reach(result.findings) == 1000
    assert result.predict(1000 * largest).extrapolation == pytest.approx(1000)
    with pytest.raises(FitError, match=r"are 1,100 times the largest.*anyway=True"):
        result.predict(1100 * largest)
    with pytest.raises(FitError, match=r"are over 1,000 times the largest.*at most 1,000 times is"):
        result.predict(1000.1 * largest)
    shown = str(result.predict(1000.1 * largest, anyway=True).checks)
    assert "over 1,000 times the largest one" in shown
    with pytest.raises(FitError, match="at most 1,000 times is predicted"):
        result.chinchilla_table([largest, 1e4 * largest])
    with pytest.raises(FitError, match="so far beyond"):
        result.predict_loss(1e9, 1e15)
    with pytest.raises(FitError, match="so far beyond"):
        result.forecast(1e30)


def test_who_wants_it_anyway_gets_it(result, tmp_path):
    C = 1e5 * result.largest_budget
    prediction = result.predict(C, anyway=True)
    assert prediction.extrapolation == pytest.approx(1e5)
    assert f"(at most 1,000 times): {NOT_RELIABLE}" in str(prediction)
    assert NOT_RELIABLE not in str(result.predict(200 * result.largest_budget))
    assert len(result.chinchilla_table([C], anyway=True)) == 1
    assert len(result.predict_loss(1e9, 1e15, anyway=True)) == 1
    with pytest.warns(UserWarning, match="times the largest"):
        assert result.forecast(C, path=tmp_path, anyway=True).compute_budget == C


def test_where_n_is_hardly_known_less_is_predicted(narrow):
    largest, farthest = narrow.largest_budget, reach(narrow.findings)
    assert 100 < farthest < 1000
    low, high = narrow.predict(farthest * largest).num_params_interval
    assert high < 100 * low
    with pytest.raises(FitError, match="N spans more than a factor 100"):
        narrow.predict(1.3 * farthest * largest)
    assert narrow.chinchilla_table()["extrapolation"].max() == pytest.approx(100, rel=0.01)
    vague = narrow.predict(1000 * largest, anyway=True)
    assert vague.num_params > 0
    (check,) = [check for check in vague.checks if check.code == "beyond-reach"]
    assert NOT_RELIABLE in check.message
    assert "beyond-reach" not in {c.code for c in narrow.predict(farthest * largest).checks}


def test_parts_of_an_interval_that_is_not_known_are_not_listed(result):
    prediction = result.predict(1e4 * result.largest_budget, anyway=True)
    assert "loss ± " in str(prediction)
    unknown = replace(prediction, loss_interval=(0.0, math.inf))
    assert "loss ± " not in str(unknown)


@pytest.mark.parametrize(
    ("factor", "low", "high", "expected"),
    [(10, 1.0, 1e9, False), (11, 1.0, 1e9, True), (11, 1e5, 9e6, False), (11, 0.0, np.inf, True)],
)
def test_up_to_ten_times_any_interval_will_do(result, factor, low, high, expected):
    C = factor * result.largest_budget
    frame = pd.DataFrame({"compute_budget": [C], "num_params_low": low, "num_params_high": high})
    assert is_vague(result.findings, frame).tolist() == [expected]


def test_without_intervals_nothing_beyond_is_predicted_anyway(result):
    alone = replace(result.findings, law=None)
    require_reach(alone, np.array([1e13, 1e17]))
    for anyway in (False, True):
        with pytest.raises(FitError, match=r"without an interval: the budget is 10,000 times"):
            require_reach(alone, np.array([1e13, 1e18]), anyway=anyway)


def test_where_a_check_refuses_the_reach_is_the_largest_budget(result):
    refused = Check("wide-exponent", "refuse", "it is not known.", "Add runs.")
    findings = replace(result.findings, checks=[*result.checks, refused])
    assert reach(findings) == 1.1
    with pytest.raises(FitError, match=r"it is not known\. Add runs\.$"):
        require_reach(findings, np.array([1e15]))
    with pytest.raises(FitError, match="does not lift this refusal"):
        require_reach(findings, np.array([1e15]), anyway=True)
