from dataclasses import replace

import pytest
from recipes import TOKENS, with_pilot

from flops_fit.laws.check import Check
from flops_fit.report import summary
from flops_fit.report.train_this import recipe_line, train_this
from flops_fit.result import fit

META = {
    "tokens_per_example": str(TOKENS), "size_param": "width", "data_unit": "words",
    "schedule": "linear", "warmup": "0.1",
}  # fmt: skip


@pytest.fixture(scope="module")
def result():
    return fit(with_pilot(), meta=META, num_draws=100)


def test_everything_to_train_with_is_there(result):
    found = train_this(result.findings)
    assert found.budgets == ("1e+14 FLOPs", "1e+15 FLOPs")
    rows = dict(found.rows)
    assert list(rows) == [
        "width", "parameters N", "words D", "batch", "steps", "peak learning rate", "schedule",
        "expected loss",
    ]  # fmt: skip
    for i, C in enumerate((1e14, 1e15)):
        prediction = result.predict(C)
        low, high = prediction.learning_rate_interval
        rate = f"{prediction.learning_rate:.3g} ({low:.3g} to {high:.3g})"
        assert rows["peak learning rate"][i] == rate
        batch = prediction.batch_size
        assert rows["batch"][i].startswith(f"{batch} (")
        assert rows["batch"][i].endswith(f"{batch * TOKENS:.0f} words")
        assert rows["steps"][i] == f"{prediction.num_tokens / TOKENS / batch:,.0f}"
        assert rows["schedule"][i] == "linear, warm-up over 10 % of steps"
        assert rows["width"][i] == str(prediction.size)


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"schedule": "cosine"}, "cosine"),
        ({"schedule": "cosine", "warmup": "100 steps"}, "cosine, warm-up over 100 steps of steps"),
        ({}, ""),
    ],
)
def test_as_much_of_the_schedule_as_is_known(result, meta, words):
    rows = dict(train_this(replace(result.findings, meta=meta)).rows)
    assert rows.get("schedule", ("",))[0] == words


def test_where_extrapolation_is_refused_there_is_the_largest_budget_alone(result):
    refused = replace(result.findings, checks=[Check("units", "refuse", "no.")])
    assert train_this(refused).budgets == ("1e+14 FLOPs",)


def test_without_a_recipe_nothing_is_shown(result):
    plain = replace(result.findings, recipe_law=None)
    assert train_this(plain) is None
    assert recipe_line(plain) == []


def test_the_summary_has_a_line_on_the_recipe_and_stays_short(result):
    lines = summary.summary(result.findings)
    assert lines[0] == "Result: 35 runs, 0 excluded; 53 more to find and check the recipe"
    (line,) = (line for line in lines if line.startswith("Recipe by "))
    prediction = result.predict(1e14)
    assert "45 pilot runs and 8 checks: learning rate ~ N^-0." in line
    assert f"at 1e+14 FLOPs learning rate {prediction.learning_rate:.3g} (" in line
    assert f"batch {prediction.batch_size} (" in line
    many = [Check(f"doubt-{i}", "warn", "a doubt.") for i in range(9)]
    assert len(summary.summary(replace(result.findings, checks=many))) < 15


def test_the_verdict_says_the_recipe(result):
    words = f", with a peak learning rate of {result.predict(1e14).learning_rate:.3g} and "
    assert words in summary.verdict(result.findings)
    assert "learning rate" not in summary.verdict(replace(result.findings, recipe_law=None))


def test_what_was_not_tuned_has_no_law(result):
    recipe = replace(result.recipe_law, tuned=("learning_rate",))
    (line,) = recipe_line(replace(result.findings, recipe_law=recipe))
    assert "batch ~" not in line
    assert "learning rate ~ N^" in line
