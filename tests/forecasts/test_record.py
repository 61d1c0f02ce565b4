"""Forecasts as JSON: read back as they were, and refused where they are not what was written."""

import json
import math
import re
from dataclasses import replace

import pytest
from planted import runs

from flops_fit.errors import TableError
from flops_fit.fit_table import fit
from flops_fit.forecasts.making import make_forecast
from flops_fit.forecasts.record import Forecast, from_json, identified, to_json

HOSTILE = "</script><img src=x onerror=alert(1)>\"'{{7*7}}\n../../etc"


@pytest.fixture(scope="module")
def forecast():
    findings = fit(runs(), name=HOSTILE, num_draws=100).findings
    return make_forecast(findings, 1e15, note=HOSTILE)


def changed(forecast, **values):
    """The forecast's JSON with other values, under the old id."""
    document = json.loads(to_json(forecast)) | values
    return json.dumps({key: value for key, value in document.items() if value is not ...})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"num_params_interval": None, "num_tokens_interval": None, "of_budget": False},
        {"loss_interval": (-math.inf, 2.5), "run_interval": (1.5, math.inf)},
        {"size": "12 layers", "loss": -0.25, "law_vector": (0.0, -math.inf, 4.0, 0.3, 0.3, 1.0)},
        {"size": 96, "note": "\ud800", "known_runs": 3},
        {"by": (("dataset", "c4"), ("lr", "0.1")), "passes": 4.0},
        {"size_param": "d_model", "size": 32},
    ],
)
def test_a_forecast_is_read_back_as_it_was(forecast, values):
    made = identified(replace(forecast, **values))
    assert from_json(to_json(made), "a.json") == made


@pytest.mark.parametrize(
    "values", [{"loss": 2.0}, {"note": "I knew it"}, {"made_at": "2020-01-01T00:00:00+00:00"}]
)
def test_a_forecast_that_was_changed_is_refused(forecast, values):
    with pytest.raises(TableError, match=r"a\.json was changed after the forecast was made"):
        from_json(changed(forecast, **values), "a.json")


def test_a_file_of_an_earlier_version_lacks_the_new_keys(forecast):
    document = json.loads(to_json(forecast))
    assert not {"by", "passes"} & set(document)
    assert (forecast.by, forecast.passes) == ((), 1.0)


@pytest.mark.parametrize("values", [{"by": ["c4"]}, {"by": {"dataset": 4}}, {"passes": 0.5}])
def test_new_keys_are_checked_where_they_are(forecast, values):
    with pytest.raises(TableError, match=f"damaged forecast:\\s+- {next(iter(values))}"):
        from_json(changed(forecast, **values), "a.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.json holds no forecast: it is not JSON"),
        ('{"loss": NaN}', "not JSON .NaN is not a number"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "expected JSON with kind 'flops-fit forecast'"),
        ('{"schema": 1, "law": {}}', "expected JSON with kind"),
    ],
)
def test_a_foreign_file_is_refused(text, message):
    with pytest.raises(TableError, match=message):
        from_json(text, "a.json")


def test_another_schema_is_refused(forecast):
    with pytest.raises(TableError, match="has schema 2; this version of flops-fit reads 1"):
        from_json(changed(forecast, schema=2), "a.json")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"num_params": "7B"}, ["num_params: expected a positive number, got '7B'"]),
        ({"loss": ..., "note": 3}, ["note: expected text, got 3", "loss: expected a number"]),
        ({"loss_interval": [1.0]}, ["loss_interval: expected two numbers, got [1.0]"]),
        ({"law_vector": [1.0] * 5}, ["law_vector: expected six to eight numbers"]),
        ({"made_at": "yesterday"}, ["made_at: expected a date with its time zone"]),
        ({"made_at": "2026-01-01T00:00:00"}, ["made_at: expected a date with its time zone"]),
        ({"num_params": 10**400, "loss": -(10**400)}, ["num_params: expected", "loss: expected"]),
        ({"size": {"a": 1}, "num_runs": True}, ["size: expected", "num_runs: expected a whole"]),
    ],
)
def test_every_damaged_value_is_named(forecast, values, expected):
    with pytest.raises(TableError) as caught:
        from_json(changed(forecast, **values), "a.json")
    assert caught.value.heading == "a.json is a damaged forecast:"
    problems = caught.value.problems
    assert len(problems) == len(expected)
    assert all(words in problem for words, problem in zip(expected, problems, strict=True))


def test_a_later_version_may_say_more(forecast):
    """Further keys count in the hash, and are passed over."""
    document = json.loads(to_json(forecast)) | {"mood": "hopeful"}
    with pytest.raises(TableError, match="was changed"):
        from_json(json.dumps(document), "a.json")


def test_the_id_has_the_date_and_depends_on_everything_said(forecast):
    assert forecast.id.startswith(forecast.made_at[:10].replace("-", "") + "T")
    others = [replace(forecast, note="b"), replace(forecast, made_at="2026-01-01T00:00:00+00:00")]
    assert len({identified(each).id for each in [forecast, *others]}) == 3


def test_the_text_has_units_intervals_and_places(forecast):
    shown = str(replace(forecast, note="first", artifact="s3://bucket/a.json"))
    for words in ("1e+15 FLOPs, 10 times the largest", "parameters", "tokens", " to ", "s3://"):
        assert words in shown
    given = str(replace(forecast, num_params_interval=None))
    assert "(" not in next(line for line in given.splitlines() if "parameters" in line)
    assert "already held such a run" in str(replace(forecast, known_runs=1))
    sized = replace(forecast, size=32, size_param="d_model")
    (line,) = [line for line in str(sized).splitlines() if line.startswith("  parameters")]
    assert re.search(r" \(95 %: .* to .*\), d_model 32$", line)  # as a prediction has it
    assert re.search("D / N .* tokens per parameter", str(sized))
    assert ", d_model 32</td>" in sized._repr_html_()


def test_a_notebook_shows_hostile_names_as_text(forecast):
    assert isinstance(forecast, Forecast)
    page = forecast._repr_html_()
    assert "<img" not in page
    assert "<script" not in page
