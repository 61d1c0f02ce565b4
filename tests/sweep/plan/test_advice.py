import re
import warnings
from dataclasses import replace

import pytest
import torch
from planned import BUDGETS
from torch.utils.data import TensorDataset

from flops_fit import Recipe
from flops_fit.errors import FlopsFitWarning, InfeasiblePlanError


@pytest.mark.slow
def test_short_budget_is_left_out_with_a_warning_naming_what_works(planned):
    with pytest.warns(
        FlopsFitWarning, match=r"budgets left out:\n  - budget 1e.05: fewer than 4"
    ) as seen:
        plan = planned(compute_budgets=[1e5, *BUDGETS])
    assert plan.compute_budgets == BUDGETS
    assert len(seen) == 1
    assert_window_works(planned, str(seen[0].message))


@pytest.mark.slow
def test_every_infeasible_budget_is_named_in_one_error(planned):
    with pytest.raises(InfeasiblePlanError, match=r"(?s)budget 1e.03.*budget 2e.03") as seen:
        planned(compute_budgets=[1e3, 2e3])
    assert len(seen.value.problems) == 3
    assert_window_works(planned, str(seen.value))


WINDOW = r"budgets (?:from|of) about ([\d.e+]+)(?: to about ([\d.e+]+))? FLOPs"


def assert_window_works(planned, message, **changes):
    """The budgets that a message names can be planned."""
    found = re.search(WINDOW, message)
    assert found, message
    low, high = (float(end or found[1]) for end in found.groups())
    # a warning would be an error
    assert planned(compute_budgets=[low, high], **changes).compute_budgets == sorted({low, high})


def examples(count):
    return TensorDataset(torch.randn(count, 4), torch.arange(count) % 3)


def assert_change_works(planned, message, given, budgets):
    """With what a message advises all the budgets can be planned, around the expected optimum."""
    line = next(
        line
        for line in message.splitlines()
        if "work with Rec" in line or "work with about" in line or "every budget has sizes" in line
    )
    batch = re.search(r"Recipe\(batch_size=(\d+)\)", line)
    more = re.search(r"about ([\d,]+) training examples", line)
    epochs = re.search(r"Recipe\(max_epochs=(\d+)\)", line)
    assert batch or more
    recipe = given["recipe"]
    if batch:
        recipe = replace(recipe, batch_size=int(batch[1]))
    ways = [(given["dataset"], recipe)]
    if more:
        enough = examples(-(-int(more[1].replace(",", "")) * 20 // 19))
        ways = [(enough, recipe)]
    if epochs:
        ways.append((given["dataset"], replace(recipe, max_epochs=float(epochs[1]))))
    for dataset, recipe in ways:  # a warning would be an error
        changes = {**given, "dataset": dataset, "recipe": recipe, "compute_budgets": budgets}
        assert planned(**changes).compute_budgets == budgets


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "recipe", "sizes", "budgets"),
    [
        (2000, Recipe(pilot=False), None, [1e8, 3e8, 1e9]),
        (
            2000,
            Recipe(batch_size=8, pilot=False),
            None,
            [1e8, 3e8, 1e9],
        ),  # rows a factor 1.2 wide at best
        (2000, Recipe(pilot=False), [5, 10, 20, 40], [1e8, 3e8, 1e9]),
        (6000, Recipe(pilot=False), None, [3e7, 1e8]),
        (7000, Recipe(pilot=False), None, [1e8]),
        (500_000, Recipe(batch_size=1024, pilot=False), None, [1e8, 1e9]),
    ],
)
def test_advice_makes_the_budgets_asked_for_work(planned, count, recipe, sizes, budgets):
    given = {"dataset": examples(count), "recipe": recipe, "sizes": sizes}
    with pytest.raises(InfeasiblePlanError, match="no budget can be planned") as seen:
        planned(compute_budgets=budgets, **given)
    assert_change_works(planned, str(seen.value), given, budgets)


def test_reasons_name_the_sizes_that_they_are_about(planned):
    changes = {"dataset": examples(400), "recipe": Recipe(batch_size=32, pilot=False)}
    with pytest.raises(InfeasiblePlanError, match=r"budget 3e\+06") as seen:
        planned(compute_budgets=[3e6], sizes=[4, 8, 1024, 4096], **changes)
    (line,) = [line for line in str(seen.value).splitlines() if "fewer than 3 sizes fit" in line]
    assert re.search(r"; with width=1024, 3e\+06 FLOPs are \d+ steps? of 32 examples", line)
    assert re.search(r"and with width=4, 3e\+06 FLOPs need \S+ examples, more than 4 epochs", line)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"sizes": [4, 8, 16, 32]}])
def test_data_enough_for_some_budgets_only(planned, changes):
    changes = {**changes, "dataset": examples(20_000), "recipe": Recipe(pilot=False)}
    with pytest.raises(InfeasiblePlanError, match=r"budget 10: .*\n.*budget 1e\+20: ") as seen:
        planned(compute_budgets=[10, 1e20], **changes)
    assert_window_works(planned, str(seen.value), **changes)


@pytest.mark.slow
def test_data_too_few_for_any_budget(planned):
    changes = {"dataset": examples(2000), "recipe": Recipe(pilot=False)}
    with pytest.raises(
        InfeasiblePlanError, match="no budget gets a full row of sizes with this mo"
    ) as seen:
        planned(compute_budgets=[10, 1e20], **changes)
    more = re.search(r"with about ([\d,]+) training examples, budgets from", str(seen.value))
    enough = examples(int(more[1].replace(",", "")) * 20 // 19 + 1)
    of_more = str(seen.value)[more.start() :]
    assert_window_works(planned, of_more, **{**changes, "dataset": enough})


def test_settings_are_named_for_the_data_that_are_there(planned):
    data, budgets = examples(1700), [3e6, 1e7, 3e7, 1e8]
    with pytest.raises(InfeasiblePlanError, match=r"about .* training examples\n") as seen:
        planned(compute_budgets=budgets, dataset=data, recipe=Recipe(batch_size=256, pilot=False))
    line = seen.value.problems[-1]
    epochs, batch = (int(re.search(rf"{name}=(\d+)", line)[1]) for name in ("epochs", "batch_size"))
    recipe = Recipe(batch_size=batch, max_epochs=epochs, pilot=False)
    assert_window_works(planned, line, dataset=data, recipe=recipe)


@pytest.mark.slow
def test_rows_that_do_not_surround_the_expected_optimum(planned):
    given = {"dataset": examples(20_000), "recipe": Recipe(pilot=False)}
    budgets = [1e7, 1e8, 1e9]
    with pytest.warns(FlopsFitWarning, match="rows on one side of the expected optimum") as seen:
        plan = planned(compute_budgets=budgets, **given)
    assert plan.compute_budgets == budgets
    message = str(seen[0].message)
    assert "budget 1e+07: the optimum is expected near 344 parameters, but models of mo" in message
    assert "budget 1e+08" not in message
    assert_change_works(planned, message, given, budgets)


@pytest.mark.slow
def test_smallest_model_too_large_for_a_budget(planned, mlp):
    with pytest.raises(InfeasiblePlanError, match="smallest model, with 80,011 parameters"):
        planned(model_cls=lambda width: mlp(10_000 + width), compute_budgets=[1e6])


@pytest.mark.slow
def test_model_in_too_few_sizes(planned, mlp):
    with pytest.raises(InfeasiblePlanError, match=r"too few sizes between 803 and 19\.3k"):
        planned(model_cls=lambda level: mlp(100**level), model_size_param="level")


SHORT = (
    r"(\d+) of (\d+) trials have fewer than 200 steps, the shortest (\d+): .*; all have more with "
)


@pytest.mark.parametrize(
    ("batch", "budgets"),
    [(64, [3e5, 6e5]), (16, [3e5, 6e5]), (64, [2e5, 4e5, 8e5]), (2, [5e4, 1e5])],
)
def test_short_trials_are_warned_of_with_what_gives_them_more_steps(planned, batch, budgets):
    given = {"dataset": examples(1707), "sizes": [4, 8, 16, 32]}
    recipe = Recipe(batch_size=batch, pilot=False)
    with pytest.warns(FlopsFitWarning) as seen:
        plan = planned(compute_budgets=budgets, recipe=recipe, **given)
    (warned,) = [found for w in seen if (found := re.match(SHORT, str(w.message)))]
    short = [trial.steps for trial in plan.trials if trial.steps < 200]
    assert [int(group) for group in warned.groups()] == [len(short), len(plan.trials), min(short)]
    remedy = warned.string[warned.end() :]
    if smaller := re.search(r"batch_size=(\d+)", remedy):
        recipe = replace(recipe, batch_size=int(smaller[1]))
    budgets = plan.compute_budgets
    if larger := re.search(r"budgets (\d+) times", remedy):
        budgets = [int(larger[1]) * budget for budget in budgets]
    if epochs := re.search(r"max_epochs=(\d+)", remedy):
        recipe = replace(recipe, max_epochs=float(epochs[1]))
    assert smaller or larger
    better = {trial.size: trial for trial in plan.trials}  # only these were planned
    again = planned(compute_budgets=budgets, recipe=recipe, **{**given, "sizes": [*better]})
    assert min(trial.steps for trial in again.trials) >= 200


def test_long_trials_are_not_warned_of(planned):
    given = {"dataset": examples(1707), "sizes": [4, 8, 16, 32]}
    plan = planned(compute_budgets=[3e5, 6e5], recipe=Recipe(batch_size=1, pilot=False), **given)
    assert min(trial.steps for trial in plan.trials) >= 200


@pytest.mark.parametrize("batch", [64, 16, 8])
def test_budgets_that_are_advised_give_enough_steps_by_a_smaller_batch_and_more_epochs(
    planned, batch
):
    given = {"dataset": examples(1707), "sizes": [4, 8, 16, 32]}
    recipe = Recipe(batch_size=batch, pilot=False)
    with pytest.raises(InfeasiblePlanError, match="no budget can be planned") as seen:
        planned(compute_budgets=[10, 1e20], recipe=recipe, **given)
    message = str(seen.value)
    fields = re.search(r"with Recipe\((.*?)\), budgets from", message)
    changes = dict(field.split("=") for field in fields[1].split(", ")) if fields else {}
    if "batch_size" in changes:
        recipe = replace(recipe, batch_size=int(changes["batch_size"]))
    if "max_epochs" in changes:
        recipe = replace(recipe, max_epochs=float(changes["max_epochs"]))
    low, high = (float(end) for end in re.search(WINDOW, message).groups())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = planned(compute_budgets=[low, high], recipe=recipe, **given)
    assert min(trial.steps for trial in plan.trials) >= 200
    assert changes
