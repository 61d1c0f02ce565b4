"""The choice of runs under limits: for the answer, and to test the law."""

import math
from dataclasses import replace

import numpy as np
import pytest
from designs import BUDGETS, LAW, TARGET, found, possible, sweep, with_misfit

from flops_fit.laws.design.next_runs import AIMS, Limits, choose_runs, reachable
from flops_fit.laws.design.search import Search

DECADES = np.arange(-8, 9) / 8
CANDIDATES = possible({C: DECADES for C in (*BUDGETS, 3e20)})


def chosen(findings, limits, candidates=CANDIDATES, **options):
    choices = choose_runs(findings, TARGET, candidates, limits, **options)
    return choices, candidates.iloc[[run for choice in choices for run in choice.runs]]


def test_with_a_misfit_rows_near_the_target_are_begun_and_under_the_law_alone_they_are_not(
    findings,
):
    ten = Limits(least_runs=10, most_runs=10)
    (choices, alone), (_, wrong) = (chosen(with_misfit(findings, r), ten) for r in (0.0, 30.0))
    narrowing = [i for one in choices if "narrows" in one.why for i in one.runs]
    of_narrowing = alone.loc[narrowing]
    assert of_narrowing["compute_budget"].max() < 1e20
    assert wrong["compute_budget"].max() == 3e20
    decades = of_narrowing["num_params"] / LAW.n_opt(of_narrowing["flops"].to_numpy())
    assert np.log10(decades).abs().min() > 0.7


@pytest.mark.parametrize("aim", AIMS)
def test_no_run_is_chosen_twice_and_every_choice_says_why(findings, aim):
    choices, runs = chosen(findings, Limits(least_runs=12, most_runs=12), aim=aim)
    assert len(runs) == 12
    assert not runs.index.has_duplicates
    words = " ".join(choice.why for choice in choices)
    assert "tests the law" in words
    assert {"num_params": "narrows N_opt", "loss": "narrows the loss"}[aim] in words
    assert all(-1e-9 < choice.narrower < 1 for choice in choices)


@pytest.mark.parametrize("most", [1e18, 2.5e19, 3e20, 1.3e21])
def test_the_limit_on_flops_is_kept(findings, most):
    limits = Limits(least_runs=500, most_flops=most)
    _, runs = chosen(with_misfit(findings, 30.0), limits)
    assert 0 < runs["flops"].sum() <= most


@pytest.mark.parametrize("most", [1, 3, 4, 7])
def test_the_limit_on_runs_is_kept(findings, most):
    limits = Limits(least_runs=most, most_runs=most)
    assert len(chosen(with_misfit(findings, 30.0), limits)[1]) == most


def test_it_stops_once_enough_is_spent_or_gained(findings):
    wrong = with_misfit(findings, 3.0)
    _, spent = chosen(wrong, Limits(least_flops=5e19))
    without_last = spent["flops"].iloc[:-4].sum()
    assert without_last < 5e19 <= spent["flops"].sum()
    choices, narrow = chosen(wrong, Limits(least_flops=np.inf, narrower=0.1))
    left = np.cumprod([1 - choice.narrower for choice in choices])
    assert left[-1] <= 0.9
    assert (left[:-1] > 0.9).all()
    assert len(narrow) < len(CANDIDATES)


def test_all_candidates_are_chosen_in_the_end(findings):
    few = possible({1e18: (-0.9, 0.9), 1e20: (-0.8, 0.1, 0.9)})
    choices, runs = chosen(findings, Limits(least_runs=100), few)
    assert sorted(runs.index) == [0, 1, 2, 3, 4]
    together = Search.of(findings, TARGET, few, None, "num_params").take(range(5))
    assert 1 - np.prod([1 - one.narrower for one in choices]) == pytest.approx(together, rel=1e-6)


@pytest.mark.parametrize("aim", AIMS)
def test_what_can_be_reached_grows_with_the_candidates(findings, aim):
    wrong = with_misfit(findings, 10.0)
    shares = [
        reachable(wrong, TARGET, possible(dict.fromkeys(budgets, DECADES)), aim)
        for budgets in ((1e18,), (1e18, 1e20), (1e18, 1e20, 1e21), (1e18, 1e20, 1e21, 1e22))
    ]
    assert 0 < shares[0] < shares[1] < shares[2] < shares[3] < 1
    assert shares[3] > 0.5


def test_rows_without_a_minimum_and_short_rows_come_first():
    table = sweep()
    rows = [table["compute_budget"] == C for C in BUDGETS]
    edge = table[rows[2]].nsmallest(2, "num_params").index
    short = table[rows[1] & table["size"].isin([1, 3])].index
    choices, runs = chosen(
        found(table.drop(index=edge.union(short))), Limits(least_runs=4, most_runs=4)
    )
    reasons = [choice.why for choice in choices]
    assert reasons[:2] == [
        "the least loss of its row lies at this edge",
        "its row has fewer than four sizes",
    ]
    assert runs["compute_budget"].iloc[:2].tolist() == [BUDGETS[2], BUDGETS[1]]


def test_runs_under_way_lower_what_is_gained_nearby(findings):
    one = Limits(least_runs=1, most_runs=1)
    at = possible({1e20: (0.9,)})
    (free,), _ = chosen(with_misfit(findings, 10.0), one, at)
    waiting = possible({1e20: (0.85,)})
    (with_waiting,), _ = chosen(with_misfit(findings, 10.0), one, at, pending=waiting)
    assert with_waiting.narrower < 0.8 * free.narrower


def test_without_candidates_there_is_no_choice(findings):
    assert chosen(findings, Limits(), CANDIDATES.iloc[:0])[0] == []


def test_a_row_that_is_needed_is_begun_first(findings):
    candidates = possible(dict.fromkeys((*BUDGETS, 1e20, 3e20, 1e21), DECADES))
    limits = Limits(least_runs=8, row_at=[1e20, 1e21])
    (first, *_), runs = chosen(with_misfit(findings, 10.0), limits, candidates)
    assert first.why == "begins a row that is needed in any case"
    assert set(runs["compute_budget"].iloc[: len(first.runs)]) < {1e20, 1e21}
    assert len(first.runs) == 4


def timed(findings, seconds):
    """The same runs, which took so many seconds."""
    runs = findings.runs
    return replace(findings, runs=runs.assign(wall_time_s=seconds(runs), state="complete"))


def test_per_hour_runs_that_are_quick_for_their_flops_are_preferred(findings):
    limits = Limits(least_runs=12, most_runs=12)
    # Each token takes as long, whatever the size, so that large models are cheap for their FLOPs.
    by_tokens = timed(with_misfit(findings, 3.0), lambda runs: runs["num_tokens"] / 1e6)
    (_, per_flop), (choices, per_hour) = (
        chosen(by_tokens, limits, per_hour=per_hour) for per_hour in (False, True)
    )
    ratios = [runs["num_tokens"].sum() / runs["flops"].sum() for runs in (per_flop, per_hour)]
    assert ratios[1] < 0.95 * ratios[0]
    assert any("most for its time" in choice.why for choice in choices)


def test_per_hour_is_per_flop_where_time_is_in_proportion_to_flops_or_not_known(findings):
    limits = Limits(least_runs=12, most_runs=12)
    wrong = with_misfit(findings, 3.0)
    _, expected = chosen(wrong, limits)
    for seconds in (lambda runs: runs["flops"] / 1e12, lambda runs: math.nan):
        _, runs = chosen(timed(wrong, seconds), limits, per_hour=True)
        assert runs.equals(expected)
