import json
from dataclasses import replace

import pytest
from recipes import with_pilot

from flops_fit.cli import as_json
from flops_fit.result import Result, fit


@pytest.fixture(scope="module")
def result():
    return fit(with_pilot(), meta={"tokens_per_example": "16"}, num_draws=100)


@pytest.mark.parametrize("name", ["learning_rate", "batch_size"])
def test_a_prediction_carries_the_recipe(result, name):
    prediction = result.predict(1e15)
    found = json.loads(as_json.dumps(as_json.of_prediction(prediction, result)))
    assert found[name] == getattr(prediction, name)
    assert found[f"{name}_interval"] == list(getattr(prediction, f"{name}_interval"))
    assert set(found["interval_parts"]["loss"]) == {"parameters", "misfit", "recipe", "noise"}


def test_the_table_carries_the_recipe(result):
    found = json.loads(as_json.dumps(as_json.of_result(result)))
    first = result.chinchilla_table().iloc[0]
    assert found["table"][0]["batch_size"] == first["batch_size"]
    assert {run["role"] for run in found["runs"]} == {"sweep", "pilot", "check"}


def test_without_a_recipe_it_is_null(result):
    plain = Result(replace(result.findings, recipe_law=None))
    found = json.loads(as_json.dumps(as_json.of_prediction(plain.predict(1e15), plain)))
    assert found["learning_rate"] is None
    assert found["batch_size_interval"] is None
