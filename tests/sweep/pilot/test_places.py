import math

import pytest
from pilots import DECADE, planted_recipe, rows_of, stages_of, trained

from flops_fit.sweep.pilot.places import check_budget, earlier_budget, places, plan_pilot


def test_three_sizes_below_the_smallest_budget_the_middle_one_first():
    rows, _ = rows_of()
    found = places(rows, DECADE)
    assert [place.budget for place in found] == [2e7, 2e7, 2e7, 6e7]
    N = [place.cost.num_params for place in found[:3]]
    assert len(N) == 3
    assert sorted(N)[1] == N[0]


def test_a_second_budget_where_the_sweep_spans_enough():
    rows, _ = rows_of()
    found = places(rows, (6e7, 6e8, 6e9))
    assert [place.budget for place in found] == [2e7, 2e7, 2e7, 8e7]
    assert len(places(rows, (6e7, 3e8))) == 3


@pytest.mark.parametrize(("decades", "share"), [(1, 0.15), (2, 0.03), (3, 0.03)])
def test_its_share_of_the_sweep(decades, share):
    rows, _ = rows_of()
    budgets = [6e7 * 10 ** (decades * k / 3) for k in range(4)]
    trials = [trial for budget in budgets for trial in rows.row(budget)[0]]
    pilot = plan_pilot(rows, trials)
    total = sum(trial.flops for trial in trials)
    assert pilot.most_flops <= 1.001 * share * total
    assert pilot.most_flops + pilot.check_flops <= 0.2 * total


def test_given_sizes_are_those_of_the_pilot():
    rows, trials = rows_of(sizes=(20, 60, 180, 540))
    sizes = plan_pilot(rows, trials).sizes
    assert set(sizes) <= {20, 60, 180, 540}
    assert list(sizes) == sorted(sizes)


def test_the_row_that_is_checked_is_the_largest_that_is_cheap_enough():
    assert check_budget((1.0, 10.0), 8 * 1.0 / 0.07 + 1) == 1.0
    assert check_budget((1.0, 10.0), 8 * 10.0 / 0.07 + 1) == 10.0
    assert check_budget((1.0, 10.0), 10.0) is None


def test_a_pilot_that_is_near_enough_is_gone_on_with():
    _, runs, _ = trained(stages_of(), planted_recipe())
    assert earlier_budget(runs, 6e7) == 2e7
    assert earlier_budget(runs, 3e7) == 2e7
    assert earlier_budget(runs, 2e9) is None
    assert earlier_budget([], 6e7) is None
    assert math.isfinite(plan_pilot(*rows_of()).budget)
