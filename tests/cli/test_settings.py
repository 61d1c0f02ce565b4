from functools import partial
from pathlib import Path

import pytest
import tiny_task
from torch import nn

from flops_fit.cli.settings import Settings, read
from flops_fit.errors import ArgumentError

FILE = """
model: tiny_task:Net
size-param: width
model_args: {dropout: 0.5}
data: tiny_task:data
data_args: {count: 300}
loss: torch.nn:CrossEntropyLoss
metrics: {again: "torch.nn.functional:cross_entropy"}
budgets: [1e10, 3e10]
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
    settings = read(file, {"budgets": [1e9], "model_args": {"dropout": 0.1}, "recipe": {"clip": 2}})
    assert settings.budgets == [1e9]
    assert settings.model_args == {"dropout": 0.1}
    assert settings.recipe["clip"] == 2
    assert settings.recipe["precision"] == "no"
    assert settings.size_param == "width"


def test_all_faults_of_a_file_are_told_at_once(tmp_path):
    file = tmp_path / "faulty.yaml"
    file.write_text("modle: a\nzzz: 1\nmodel: 3\nmodel_args: [1]\n")
    with pytest.raises(ArgumentError) as caught:
        read(file, {})
    told = caught.value.problems
    assert "unknown key 'modle'; did you mean 'model'?" in told[0]
    assert "unknown key 'zzz'; known are model, size_param" in told[1]
    assert told[2:] == [
        "model: expected text, got 3",
        "model_args: expected names and values, as 'n_layer: 4', got [1]",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [a", "cannot be read: .*, in line 1"),
        (
            "model: !!python/name:a.b",
            r"text \(my.module:Name\); got the tag !!python/name:a.b, in line 1",
        ),
        ("a: 1\nb: 1\na: 2", "'a' is given twice, in line 3"),
        ("- model", "expected a mapping of keys"),
        ("", "expected a mapping of keys"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(ArgumentError, match=message):
        read(tmp_path / "sweep.yaml", {})


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "sweep.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArgumentError, match="cannot be read"):
        read(tmp_path / "sweep.yaml", {})


def test_what_is_missing_and_what_is_not_found_is_told_together():
    settings = Settings(
        model="tiny_task:Nett",
        loss="no_module:loss",
        data_args={"count": 3},
        eval_data="tiny_task:dada",
        eval_data_args={"count": 3},
        recipe={"warmpu": 0.1},
        flops="tiny_task:flpos",
    )
    with pytest.raises(ArgumentError) as caught:
        settings.imported()
    text = str(caught.value)
    assert "missing: size_param, data, budgets" in text
    assert "model: tiny_task has no Nett" in text
    assert "loss: there is no module" in text
    assert "- data_args: given without data" in text
    assert "eval_data: tiny_task has no dada" in text
    assert "eval_data_args" not in text
    assert "flops: tiny_task has no flpos" in text
    assert "recipe: unknown field 'warmpu'" in text


def test_arguments_of_what_takes_none_are_refused():
    settings = Settings("tiny_task:Net", "width", data="tiny_task:NUMBER", data_args={"a": 1})
    with pytest.raises(ArgumentError, match="data_args: data names an object that takes no arg"):
        settings.task()


def test_an_unknown_field_of_the_recipe_is_told_with_the_nearest():
    with pytest.raises(ArgumentError, match="unknown field 'warmpu'; did you mean 'warmup'"):
        Settings(recipe={"warmpu": 0.1}).request()


def test_flops_may_be_a_function():
    assert Settings(flops="tiny_task:data").request().flops is tiny_task.data
    assert Settings().request().flops == "measured"
