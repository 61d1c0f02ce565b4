"""Every check of a prediction has a case that raises it and one that does not."""

from flops_fit.laws.checks.of_predictions import check_prediction
from flops_fit.result import fit


def test_predictions_far_out():
    codes = {
        check.code: check.severity
        for check in check_prediction(200.0, has_interval=True, cost_extrapolated=True)
    }
    assert codes == {"far-extrapolation": "warn", "cost-extrapolated": "note"}
    assert check_prediction(50.0, has_interval=True, cost_extrapolated=False) == []
    grave = check_prediction(2000.0, has_interval=False, cost_extrapolated=False)
    assert grave[0].severity == "refuse"


def test_cost_of_a_token_that_is_extrapolated(sound):
    f = 6 * sound["num_params"] + 900 * sound["num_params"] ** 0.5
    flops = f * sound["num_tokens"]
    measured = fit(sound.assign(flops=flops, compute_budget=flops))
    codes = {check.code: check.severity for check in measured.predict(1e16).checks}
    assert codes["cost-extrapolated"] == "note"
    assert measured.predict(1e13).checks == ()
    assert fit(sound).predict(1e16).checks == ()
