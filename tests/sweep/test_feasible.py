import re

import pytest
import torch
from planned import BUDGETS
from torch.utils.data import TensorDataset

from flops_fit import Recipe
from flops_fit.errors import FlopsFitWarning, InfeasiblePlanError


def test_short_budget_is_left_out_with_a_warning_naming_what_works(planned):
    with pytest.warns(FlopsFitWarning, match="left out: budget 1e.05: fewer than 3 sizes") as seen:
        plan = planned(compute_budgets=[1e5, *BUDGETS])
    assert plan.compute_budgets == BUDGETS
    assert len(seen) == 1
    assert_works(planned, str(seen[0].message))


def test_data_that_would_not_last(planned):
    recipe = Recipe(max_epochs=4)
    with pytest.raises(InfeasiblePlanError, match=r"over 4 epochs of 1.9e.03") as seen:
        planned(compute_budgets=[1e12], sizes=[4, 5, 6], recipe=recipe)
    assert "Recipe(max_epochs=...)" in str(seen.value)
    assert_works(planned, str(seen.value), sizes=[4, 5, 6], recipe=recipe)


def test_every_infeasible_budget_is_named_in_one_error(planned):
    with pytest.raises(InfeasiblePlanError, match=r"(?s)budget 1e.03.*budget 2e.03") as seen:
        planned(compute_budgets=[1e3, 2e3])
    assert len(seen.value.problems) == 3
    assert_works(planned, str(seen.value))


def assert_works(planned, message, **changes):
    """The budget that a message names can be planned."""
    found = re.search(r"budgets from about ([\d.e+]+)(?: to about ([\d.e+]+))? FLOPs", message)
    assert found, message
    low, high = (float(end or found[1]) for end in found.groups())
    assert planned(compute_budgets=[low, high], **changes).compute_budgets == sorted({low, high})


def examples(count):
    return TensorDataset(torch.randn(count, 4), torch.arange(count) % 3)


@pytest.mark.parametrize("changes", [{}, {"sizes": [4, 8, 16, 32]}])
def test_data_enough_for_some_budgets_only(planned, changes):
    changes = {**changes, "dataset": examples(20_000), "recipe": Recipe()}
    with pytest.raises(InfeasiblePlanError, match=r"budget 10: .*\n.*budget 1e\+20: ") as seen:
        planned(compute_budgets=[10, 1e20], **changes)
    assert_works(planned, str(seen.value), **changes)


@pytest.mark.parametrize("count", [21, 1000, 3000])
def test_data_too_few_for_any_budget(planned, count):
    changes = {"dataset": examples(count), "recipe": Recipe()}
    with pytest.raises(InfeasiblePlanError, match="no budget works with this model") as seen:
        planned(compute_budgets=[1e9, 1e10], **changes)
    more = re.search(r"about ([\d,]+) training examples, or", str(seen.value))
    enough = {**changes, "dataset": examples(int(more[1].replace(",", "")) * 20 // 19 + 1)}
    assert_a_budget_works(planned, enough)
    batch = re.search(r"Recipe\(batch_size=(\d+)\)", str(seen.value))
    assert (batch is None) == (count == 21)
    if batch:
        assert_a_budget_works(planned, {**changes, "recipe": Recipe(batch_size=int(batch[1]))})


def assert_a_budget_works(planned, changes):
    with pytest.raises(InfeasiblePlanError) as seen:
        planned(compute_budgets=[1.0], **changes)
    assert_works(planned, str(seen.value), **changes)


def test_smallest_model_too_large_for_a_budget(planned, mlp):
    with pytest.raises(InfeasiblePlanError, match="smallest model has 80,011 parameters"):
        planned(model_cls=lambda width: mlp(10_000 + width), compute_budgets=[1e6])


def test_model_in_too_few_sizes(planned, mlp):
    with pytest.raises(InfeasiblePlanError, match="comes in fewer sizes between 803 and 16,2"):
        planned(model_cls=lambda level: mlp(100**level), model_size_param="level")
