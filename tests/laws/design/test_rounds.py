"""Sweeps with a goal, simulated under planted laws."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted import LAW

from flops_fit.laws.design.candidates import lattice
from flops_fit.laws.design.course import NO_LAW, simulate_course
from flops_fit.laws.design.goal import Goal
from flops_fit.laws.design.next_runs import reachable
from flops_fit.laws.design.rounds import PRECISE, TRAINED_OUT, Reached, decide, in_words
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.laws.runs.table import read_runs

GOAL = Goal(1e15, 1.13).between([1e12, 1e14])


@pytest.fixture(scope="module")
def course():
    C = np.repeat(GOAL.first_budgets, 4)
    N = LAW.n_opt(C) * 10 ** np.tile([-0.75, -0.25, 0.25, 0.75], len(GOAL.first_budgets))
    return simulate_course(LAW, GOAL, C, N, noise=0.003, seed=0)


@pytest.fixture(scope="module")
def low():
    """The laws of three rows, and what could follow."""
    table = simulate_isoflop(LAW, GOAL.first_budgets, num_sizes=4, half_width=0.75, noise=0.003)
    findings = analyse(read_runs(table)[0], Options(num_draws=60))
    return findings, lattice(findings, GOAL.budgets), float(table["flops"].sum())


def test_a_simulated_sweep_without_a_law_begins_further_rows_until_there_is_none():
    rows = iter(GOAL.budgets[1:3])
    asked = []

    def further(begun, left):
        asked.append((sorted(begun), left))
        return row(next(rows, None))

    def row(C):
        return (
            (np.array([]),) * 2 if C is None else (np.full(2, C), LAW.n_opt(C) * np.array([1, 2]))
        )

    found = simulate_course(
        LAW, GOAL, *row(GOAL.budgets[0]), noise=0.003, seed=0, further_row=further
    )
    assert found.end == NO_LAW
    assert [reached.num_runs for reached in found.reached] == [2, 4, 6]
    assert [begun for begun, _ in asked] == [list(GOAL.budgets[:n]) for n in (1, 2, 3)]
    assert asked[1][1] == pytest.approx(GOAL.max_flops - 2 * sum(GOAL.budgets[:2]))


def test_a_sweep_goes_on_until_its_interval_is_narrow_enough(course):
    *before, last = course.reached
    assert course.end.startswith(PRECISE)
    assert last.span <= GOAL.until
    assert all(reached.span > GOAL.until for reached in before)


def test_every_row_has_four_sizes_on_both_sides_of_its_least_loss(course):
    for _, row in course.findings.fitted_runs.groupby("compute_budget"):
        row = row.sort_values("num_params")
        assert len(row) >= 4
        assert row["loss"].to_numpy().argmin() not in (0, len(row) - 1)


def test_the_same_runs_give_the_same_decision(course):
    candidates = lattice(course.findings, GOAL.budgets)
    goal = replace(GOAL, until=1.05)
    first, second = (decide(course.findings, goal, candidates, course.flops) for _ in range(2))
    assert first == second
    assert first.choices


def test_the_trials_of_a_round_fit_into_what_may_still_be_spent(course):
    candidates = lattice(course.findings, GOAL.budgets)
    goal = replace(GOAL, until=1.05, max_flops=course.flops + 5e13)
    decision = decide(course.findings, goal, candidates, course.flops)
    runs = [run for choice in decision.choices for run in choice.runs]
    assert candidates["flops"].iloc[runs].sum() <= 5e13


def test_a_sweep_ends_where_nothing_fits_into_what_may_be_spent(course):
    candidates = lattice(course.findings, GOAL.budgets)
    goal = replace(GOAL, until=1.05, max_flops=course.flops)
    assert "exceeds max_flops" in decide(course.findings, goal, candidates, course.flops).end


def test_a_sweep_ends_where_all_has_been_trained(course):
    none = lattice(course.findings, GOAL.budgets).iloc[:0]
    decision = decide(course.findings, replace(GOAL, until=1.05), none, course.flops)
    assert decision.end.startswith(TRAINED_OUT)


def test_a_goal_that_all_that_may_be_trained_cannot_reach_is_told(course):
    few = lattice(course.findings, GOAL.budgets).iloc[:5]
    decision = decide(course.findings, replace(GOAL, until=1.0001), few, course.flops)
    assert "would not make it so narrow" in decision.end


def test_as_many_trials_are_chosen_as_are_trained_side_by_side(low):
    findings, candidates, spent = low
    decision = decide(findings, replace(GOAL, until=1.05), candidates, spent, at_once=24)
    assert sum(len(choice.runs) for choice in decision.choices) >= 24


def test_a_narrow_interval_from_rows_far_below_the_target_does_not_end_a_sweep(low):
    findings, candidates, spent = low
    goal = Goal(1e16, 50.0).between([1e12, 1e14])
    decision = decide(findings, goal, candidates, spent)
    assert decision.reached.span < goal.until
    (choice,) = decision.choices
    assert len(choice.runs) == 4
    assert set(candidates["compute_budget"].iloc[list(choice.runs)]) == {goal.least_top}


def test_a_narrow_interval_from_three_rows_does_not_end_a_sweep(low):
    findings, candidates, spent = low
    goal = replace(GOAL, until=50.0)
    (choice,) = decide(findings, goal, candidates, spent).choices
    (budget,) = set(candidates["compute_budget"].iloc[list(choice.runs)])
    assert budget not in goal.first_budgets
    assert len(choice.runs) == 4


def test_a_row_that_is_needed_in_any_case_comes_first_and_the_goal_is_not_given_up_before(low):
    findings, candidates, spent = low
    few = candidates[candidates["compute_budget"].isin([*GOAL.first_budgets, GOAL.budgets[1]])]
    goal = replace(GOAL, until=1.0001)
    decision = decide(findings, goal, few, spent, at_once=8)
    assert not decision.end
    assert set(few["compute_budget"].iloc[list(decision.choices[0].runs)]) == {GOAL.budgets[1]}


def test_a_round_ends_where_it_is_expected_to_reach_the_goal(low):
    findings, candidates, spent = low
    goal = replace(GOAL, max_flops=1e20)  # and FLOPs spent that would allow for a large round
    span = decide(findings, goal, candidates, spent).reached.span
    near, far = (
        decide(findings, replace(goal, until=span**share), candidates, 1e3 * spent)
        for share in (0.9, 0.1)
    )
    counts = [sum(len(choice.runs) for choice in one.choices) for one in (near, far)]
    assert 0 < counts[0] < counts[1]


def test_a_narrow_interval_from_few_runs_does_not_end_a_sweep(low):
    findings, candidates, spent = low
    goal = replace(GOAL, until=50.0)
    begun = candidates[candidates["compute_budget"].isin(goal.first_budgets)]
    decision = decide(findings, goal, begun, spent)
    assert sum(len(choice.runs) for choice in decision.choices) == 8


@pytest.mark.parametrize("until", [1.05, 50.0])
def test_the_runs_that_a_sweep_needs_in_any_case_come_early_and_where_they_are_cheapest(
    course, until
):
    C = course.findings.fitted_runs["compute_budget"].to_numpy()
    rows = [*np.unique(C)[:3].tolist(), C.max()]
    first = pd.concat(
        [course.findings.fitted_runs[C == budget].head(4) for budget in rows], ignore_index=True
    )
    findings = analyse(read_runs(first)[0], Options(num_draws=60))
    candidates = lattice(findings, GOAL.budgets)
    decision = decide(findings, replace(GOAL, until=until), candidates, first["flops"].sum())
    runs = [run for choice in decision.choices for run in choice.runs]
    assert len(runs) == 20 - len(first)
    assert set(candidates["compute_budget"].iloc[runs]) == {rows[0]}


def test_runs_that_are_needed_come_from_the_next_row_where_the_lowest_has_no_more_sizes(low):
    findings, candidates, spent = low
    lowest, second = GOAL.first_budgets[:2]
    at_lowest = candidates[candidates["compute_budget"] == lowest].head(3)
    others = candidates[candidates["compute_budget"].isin([second, GOAL.first_budgets[2]])]
    few = pd.concat([at_lowest, others], ignore_index=True)
    choices = decide(findings, replace(GOAL, until=50.0), few, spent).choices
    runs = [run for choice in choices for run in choice.runs]
    assert few["compute_budget"].iloc[runs].value_counts().to_dict() == {lowest: 3, second: 5}


def test_a_goal_is_given_up_sooner_once_a_row_near_the_largest_budget_is_trained(course):
    candidates = lattice(course.findings, GOAL.budgets)
    top = course.findings.largest_budget
    span = course.reached[-1].span
    most = reachable(course.findings, GOAL.target, candidates)
    goal = replace(GOAL, until=span ** ((1 - most) / 5), max_flops=1e20)  # five times too narrow
    seen, unseen = (
        decide(course.findings, replace(goal, budgets=(*GOAL.budgets[:-1], last)), candidates, 1.0)
        for last in (top, 10 * top)
    )
    assert "would not make it so narrow" in seen.end
    assert not unseen.end


def test_a_narrow_interval_from_few_runs_ends_a_sweep_where_nothing_is_left(low):
    findings, candidates, spent = low
    end = decide(findings, replace(GOAL, until=50.0), candidates.iloc[:0], spent).end
    assert end.startswith(PRECISE)
    assert TRAINED_OUT in end


def test_a_sweep_whose_target_predict_would_refuse_does_not_end_as_precise(low):
    findings, candidates, spent = low
    goal = replace(GOAL, target=1.2e3 * findings.largest_budget, until=1e6)
    end = decide(findings, goal, candidates.iloc[:0], spent).end
    assert not end.startswith(PRECISE)
    assert "nothing is predicted so far beyond" in end


def test_the_loss_can_be_the_goal(low):
    findings, candidates, spent = low
    goal = Goal(1e15, None, 1.001).between([1e12, 1e14])
    decision = decide(findings, goal, candidates, spent, at_once=12)
    assert any("narrows the loss" in choice.why for choice in decision.choices)


def test_the_state_is_told_in_words():
    reached = Reached(1e13, 12, math.inf, 1.05)
    text = in_words(replace(GOAL, until_loss=1.02), reached)
    assert "N_opt is not known, of 1.13x asked for" in text
    assert "the loss spans 1.05x, of 1.02x asked for" in text
