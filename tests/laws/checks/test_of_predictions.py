"""Every check of a prediction has a case that raises it and one that does not."""

import numpy as np
import pytest
from recipes import recipe_law

from flops_fit.laws.checks.of_predictions import check_prediction, check_recipe
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


@pytest.mark.parametrize(
    ("C", "width", "doubt"),
    [
        (1e15, 2, ""),
        (1e17, 2, "learning rate and batch size were found at up to 1e+14 FLOPs, far below"),
        (1e15, 30, "batch size is known within a factor of 30"),
        (1e15, np.inf, "within a factor of inf"),
    ],
)
def test_a_recipe_that_is_far_away_or_hardly_known_is_doubted(C, width, doubt):
    row = {"compute_budget": C, "learning_rate_low": 1.0, "learning_rate_high": 2.0}
    row |= {"batch_size_low": 1.0, "batch_size_high": width}
    checks = check_recipe(recipe_law(), row, largest=1e16)
    assert [doubt in check.message for check in checks] == ([True] if doubt else [])


def test_the_budget_far_beyond_the_sweep_is_said_once():
    row = {"compute_budget": 1e17, "learning_rate_low": 1.0, "learning_rate_high": 2.0}
    row |= {"batch_size_low": 1.0, "batch_size_high": 2.0}
    assert check_recipe(recipe_law(), row, largest=1e14) == []
