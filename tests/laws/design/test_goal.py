import pytest

from flops_fit.errors import ArgumentError
from flops_fit.laws.design.goal import Goal


def test_budgets_lie_a_quarter_of_a_decade_apart_and_include_those_given():
    goal = Goal(1e21, 1.25).between([1e18, 3e18, 1e20])
    ratios = [b / a for a, b in zip(goal.budgets[:-1], goal.budgets[1:], strict=True)]
    assert {1e18, 3e18, 1e20} <= set(goal.budgets)
    assert all(1.4 < ratio < 2.5 for ratio in ratios)


def test_a_sweep_may_spend_what_the_grid_would_by_default():
    five = 1e18 + 10**18.5 + 1e19 + 10**19.5 + 1e20
    assert Goal(1e21, 1.25).between([1e18, 1e20]).max_flops == pytest.approx(7 * five)
    six = [1e18, 2e18, 4e18, 8e18, 2e19, 5e19]
    assert Goal(1e21, 1.25).between(six).max_flops == pytest.approx(7 * sum(six))
    assert Goal(1e21, 1.25, max_flops=5.0).between([1e18, 1e20]).max_flops == 5


@pytest.mark.parametrize(("target", "least"), [(1e21, 1e19), (1e22, 3.16e19), (1e20, 1e18)])
def test_a_row_is_trained_near_enough_to_the_target_in_any_case(target, least):
    goal = Goal(target, 1.25).between([1e18, 1e20])
    assert goal.least_top == pytest.approx(least, rel=0.01)


def test_all_faults_are_found_at_once():
    faults = Goal("x", 0.9, 1.0, -1, gain_per="day").faults()  # type: ignore[arg-type]
    assert [fault.partition(":")[0] for fault in faults] == [
        "target",
        "until",
        "until_loss",
        "max_flops",
        "gain_per",
    ]


@pytest.mark.parametrize(
    ("goal", "budgets", "said"),
    [
        (Goal(1e21, 1.25), [1e18], "at least the smallest and the largest"),
        (Goal(1e21, 1.25), [1e18, 1.2e18], "a range of a factor of 3"),
        (Goal(1e24, 1.25), [1e18, 1e20], "nothing is predicted beyond 1000 times"),
    ],
)
def test_budgets_that_cannot_serve_the_goal_are_told(goal, budgets, said):
    (fault,) = goal.faults_with(budgets)
    assert said in fault


@pytest.mark.parametrize(("until", "shown"), [(1.25, "1.25x"), (1.0001, "1.0001x"), (3, "3x")])
def test_the_factor_asked_for_is_shown_to_the_last_digit(until, shown):
    assert f"at most {shown}" in str(Goal(1e21, until))


def test_what_belongs_to_a_target_needs_one():
    assert Goal.asked(None, 1.25, None, None) is None
    with pytest.raises(
        ArgumentError, match=r"until: .*target=.*\n.*until_loss.*\n.*max_flops.*\n.*gain_per"
    ):
        Goal.asked(None, 1.5, 1.02, 1e20, "hour")


def test_a_larger_last_budget_moves_none_but_the_last():
    small, large = (Goal(1e21, 1.25).between([6e17, top]).budgets for top in (2e19, 4e19))
    assert set(small[:-1]) < set(large)


def test_the_target_is_never_out_of_reach_of_what_is_trained_in_any_case():
    goal = Goal(9e22, 1.25).between([1e18, 1e20])
    assert goal.target / goal.least_top <= 1000


def test_the_first_trials_must_fit_into_what_may_be_spent():
    goal = Goal(1e21, 1.25, max_flops=1e18)
    assert goal.faults_of_start(9e17) == []
    assert "take 2e+18 FLOPs" in goal.faults_of_start(2e18)[0]


@pytest.mark.parametrize(
    ("most", "first"), [(1e20, [1e18, 3.16e18, 1e19]), (1e19, [1e18, 1.78e18, 3.16e18])]
)
def test_a_sweep_begins_with_rows_in_the_lower_half_of_its_range(most, first):
    goal = Goal(1e21, 1.25).between([1e18, most])
    assert goal.first_budgets == pytest.approx(first)
