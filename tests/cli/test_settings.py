import re
from functools import partial
from pathlib import Path

import pytest
import tiny_task
from torch import nn

from flops_fit.cli.settings import Settings, read
from flops_fit.errors import ArgumentError

FILE = """
model_cls: tiny_task:Net
model-size-param: width
model_kwargs: {dropout: 0.5}
dataset: tiny_task:data
dataset_kwargs: {count: 300}
loss_fn: torch.nn:CrossEntropyLoss
metrics: {again: "torch.nn.functional:cross_entropy"}
compute_budgets: [1e10, 3e10]
recipe: {precision: no, betas: [0.9, 0.95], schedule: "math:sqrt"}
"""


@pytest.fixture
def file(tmp_path) -> Path:
    (tmp_path / "sweep.yaml").write_text(FILE)
    return tmp_path / "sweep.yaml"


def test_a_file_gives_the_arguments_of_find_optimal(file):
    settings = read(file, {})
    task, plan = settings.task(), settings.request()
    assert (task.model_cls, task.size_param) == (tiny_task.Net, "width")
    assert task.model_kwargs == {"dropout": 0.5}
    assert isinstance(task.dataset, partial)
    assert len(task.dataset()) == 300
    assert isinstance(task.loss_fn, nn.CrossEntropyLoss)
    assert task.metrics == {"again": nn.functional.cross_entropy}
    assert plan.compute_budgets == [1e10, 3e10]
    assert plan.recipe.precision == "no"
    assert plan.recipe.betas == (0.9, 0.95)
    assert plan.recipe.schedule(4.0) == 2.0


def test_what_the_command_line_gives_goes_before_the_file(file):
    given = {"compute_budgets": [1e9], "model_kwargs": {"dropout": 0.1}, "recipe": {"clip": 2}}
    settings = read(file, given)
    assert settings.compute_budgets == [1e9]
    assert settings.model_kwargs == {"dropout": 0.1}
    assert settings.recipe["clip"] == 2
    assert settings.recipe["precision"] == "no"
    assert settings.model_size_param == "width"


def test_how_many_workers_share_a_device_may_stand_in_the_file(tmp_path):
    (tmp_path / "sweep.yaml").write_text("workers: auto\nworkers_per_device: 4\n")
    settings = read(tmp_path / "sweep.yaml", {})
    assert (settings.workers, settings.workers_per_device) == ("auto", 4)
    assert read(tmp_path / "sweep.yaml", {"workers_per_device": 1}).workers_per_device == 1


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"hours": 2.0}, "2 h"),
        ({"hours": 0.25}, "15 min"),
        ({"compute_budgets": ["30 min"]}, "30 min"),
        ({"compute_budgets": ["50 USD"], "price_per_hour": 2.5}, "50 USD"),
    ],
)
def test_a_time_or_money_stands_in_place_of_budgets(file, given, text):
    request = read(file, given).request()
    asked = request.compute_budgets
    assert (asked if isinstance(asked, str) else asked.text) == text
    assert request.price_per_hour == given.get("price_per_hour")


def test_hours_in_the_file(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(re.sub("compute_budgets: .*", "hours: 3", FILE))
    settings = read(file, {})
    assert settings.task().size_param == "width"  # no budgets are missing
    assert settings.request().compute_budgets.hours == 3
    assert read(file, {"compute_budgets": [1e9]}).request().compute_budgets == [1e9]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hours": 1.0, "compute_budgets": [1e9]}, "hours: compute_budgets is given too"),
        ({"hours": -1.0}, "hours: expected a positive number, got -1.0"),
        ({"hours": "long"}, "hours: expected a positive number, got 'long'"),
    ],
)
def test_hours_that_cannot_be_used(file, given, message):
    with pytest.raises(ArgumentError, match=message):
        read(file, given).request()


def test_all_faults_of_a_file_are_reported_together(tmp_path):
    file = tmp_path / "faulty.yaml"
    file.write_text("modle_cls: a\nzzz: 1\nmodel_cls: 3\nmodel_kwargs: [1]\n")
    with pytest.raises(ArgumentError) as caught:
        read(file, {})
    misspelt, unknown, model, kwargs = caught.value.problems
    assert "unknown key 'modle_cls'; did you mean 'model_cls'?" in misspelt
    assert "unknown key 'zzz'" in unknown
    assert "model_cls, model_size_param" in unknown
    assert model == "model_cls: expected text, got 3"
    assert kwargs.startswith("model_kwargs: expected a mapping")
    assert kwargs.endswith("got [1]")


def test_keys_of_earlier_versions_are_aliases(file, tmp_path):
    older = tmp_path / "older.yaml"
    text = FILE
    for new, old in (
        ("model_cls", "model"), ("model-size-param", "size_param"),
        ("model_kwargs", "model_args"), ("dataset_kwargs", "data_args"), ("dataset", "data"),
        ("loss_fn", "loss"), ("compute_budgets", "budgets"),
    ):  # fmt: skip
        text = text.replace(f"{new}:", f"{old}:")
    older.write_text(text)
    assert read(older, {}) == read(file, {})
    older.write_text(f"{text}\nmodel_cls: again\n")
    with pytest.raises(ArgumentError, match="model_cls is given twice"):
        read(older, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_cls: [a", "cannot be read: .*, in line 1"),
        (
            "model_cls: !!python/name:a.b",
            r"text \(my.module:Name\); got the tag !!python/name:a.b, in line 1",
        ),
        ("a: 1\nb: 1\na: 2", "'a' is given twice, in line 3"),
        ("- model_cls", "expected a mapping with keys"),
        ("", "expected a mapping with keys"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, message):
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(ArgumentError, match=message):
        read(tmp_path / "sweep.yaml", {})


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "sweep.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArgumentError, match="cannot be read"):
        read(tmp_path / "sweep.yaml", {})


def test_what_is_missing_and_what_is_not_found_is_reported_together():
    settings = Settings(
        model_cls="tiny_task:Nett",
        loss_fn="no_module:loss",
        dataset_kwargs={"count": 3},
        eval_dataset="tiny_task:dada",
        eval_dataset_kwargs={"count": 3},
        recipe={"warmpu": 0.1},
        flops="tiny_task:flpos",
    )
    with pytest.raises(ArgumentError) as caught:
        settings.imported()
    text = str(caught.value)
    assert "missing: --model-size-param, --dataset, --compute-budgets or --hours (or" in text
    assert "model_cls: tiny_task has no Nett" in text
    assert "loss_fn: there is no module" in text
    assert "- dataset_kwargs: given without dataset" in text
    assert "eval_dataset: tiny_task has no dada" in text
    assert "eval_dataset_kwargs" not in text
    assert "flops: tiny_task has no flpos" in text
    assert "recipe: unknown field 'warmpu'" in text


def test_arguments_of_what_takes_none_are_refused():
    settings = Settings(dataset="tiny_task:NUMBER", dataset_kwargs={"a": 1})
    with pytest.raises(ArgumentError, match="dataset_kwargs: dataset is not a function"):
        settings.task()


def test_an_unknown_field_of_the_recipe_is_reported_with_the_nearest():
    with pytest.raises(ArgumentError, match="unknown field 'warmpu'; did you mean 'warmup'"):
        Settings(recipe={"warmpu": 0.1}).request()


def test_flops_may_be_a_function():
    assert Settings(flops="tiny_task:data").request().flops is tiny_task.data
    assert Settings().request().flops == "measured"


@pytest.mark.parametrize(
    ("given", "until", "until_loss"),
    [
        ({"target": 1e11}, 1.25, None),
        ({"target": 1e11, "until": 1.5}, 1.5, None),
        ({"target": 1e11, "until_loss": 1.02}, None, 1.02),
        ({"target": 1e11, "until": 1.5, "until_loss": 1.02}, 1.5, 1.02),
    ],
)
def test_a_target_makes_a_goal(file, given, until, until_loss):
    goal = read(file, given).request().goal
    assert (goal.target, goal.until, goal.until_loss) == (1e11, until, until_loss)


def test_a_goal_may_weigh_gains_by_the_hour(file):
    assert read(file, {"target": 1e11}).request().goal.gain_per == "flop"
    assert read(file, {"target": 1e11, "gain_per": "hour"}).request().goal.gain_per == "hour"


@pytest.mark.parametrize("key", ["until", "until_loss", "max_flops"])
def test_what_belongs_to_a_target_is_refused_without_one(file, key):
    with pytest.raises(ArgumentError, match=f"{key}: needs target"):
        read(file, {key: 1.5}).request()
