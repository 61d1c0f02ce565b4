"""Which of many possible runs to make, row by row."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from designs import LAW, TARGET, found, possible, sweep, with_misfit

from flops_fit.laws.design.search import SIZES_PER_ROW, Search

DECADES = np.arange(-8, 9) / 8


def search(findings, candidates, pending=None, aim="num_params"):
    return Search.of(findings, TARGET, candidates, pending, aim)


def best(table, most_runs=10, most_flops=np.inf, *, tests=False):
    """The best runs for the answer, or to test the law."""
    q = table.uncertainty.num_answers
    weights = np.r_[0.0, 0.0, np.ones(q - 2)] if tests else np.r_[1.0, 0.5, np.zeros(q - 2)]
    return table.best(weights, most_runs, most_flops)


def without_smallest(table, row, count):
    """The table without the smallest sizes of a row."""
    C = table["compute_budget"].unique()[row]
    drop = table[table["compute_budget"] == C].nsmallest(count, "num_params").index
    return table.drop(index=drop)


@pytest.mark.parametrize("tests", [False, True])
@pytest.mark.parametrize("budget", [3e17, 3e20])
def test_a_new_row_is_begun_with_four_sizes_on_both_sides_of_its_optimum(findings, budget, tests):
    runs = best(search(findings, possible({budget: DECADES})), tests=tests)
    assert len(runs) == SIZES_PER_ROW
    decades = DECADES[runs]
    assert len(set(decades)) == SIZES_PER_ROW
    # To test the law, a row may be narrow; to find its optimum, it is wide.
    half_width = 0.2 if tests else 0.4
    assert decades.min() <= -half_width
    assert decades.max() >= half_width


@pytest.mark.parametrize(
    ("decades", "most_runs", "most_flops"),
    [
        (DECADES, 3, np.inf),  # no room for four
        (DECADES, 10, 1e21),  # no money for four
    ],
)
def test_a_row_that_cannot_be_begun_soundly_is_not_begun(findings, decades, most_runs, most_flops):
    runs = best(search(findings, possible({3e20: decades})), most_runs, most_flops)
    assert runs == []


def test_a_row_that_has_been_begun_gets_single_sizes(findings):
    table = search(findings, possible({1e20: DECADES, 3e20: DECADES}))
    (run,) = best(table, 3, np.inf)
    assert table.table["compute_budget"].iloc[run] == 1e20
    assert best(table, 3, 0.9e20) == []


def test_what_was_taken_is_not_offered_again(findings):
    table = search(findings, possible({1e20: (-0.8, 0.9)}))
    taken = []
    while runs := best(table, 5, np.inf):
        table.take(runs)
        taken += runs
    assert sorted(taken) == [0, 1]


def test_taking_runs_narrows_the_interval_by_what_was_told(findings):
    for aim, place in (("num_params", 0), ("loss", 1)):
        table = search(findings, possible({1e20: (-0.8, 0.9)}), aim=aim)
        gain = table.uncertainty.gain([0, 1], table.drift(table.top))[place]
        assert table.take([0, 1]) == pytest.approx(1 - np.exp(-gain / 2))
        assert table.take([0]) > 0


def test_a_row_whose_least_loss_is_at_its_edge_gets_a_size_beyond_it(design_runs):
    # The third row holds the sizes 0.25 and 0.5 decades above its optimum, and another.
    extra = sweep(sizes=9, seed=8)
    extra = extra[extra["size"].isin([5]) & (extra["compute_budget"] == 2e19)]
    one_sided = found(pd.concat([without_smallest(design_runs, 2, 3), extra], ignore_index=True))
    table = search(one_sided, possible({2e19: DECADES}))
    assert list(table.edges.values()) == [-1]
    (run,) = table.beyond_edges()
    assert -0.3 < DECADES[run] < 0.1
    waiting = possible({2e19: (-0.25,)})
    assert list(search(one_sided, possible({2e19: DECADES}), waiting).beyond_edges()) == []
    beyond = DECADES[DECADES > 0.1]
    assert list(search(one_sided, possible({2e19: beyond})).beyond_edges()) == []


def test_rows_of_two_or_three_sizes_get_the_one_farthest_from_them(design_runs):
    short = found(without_smallest(design_runs, 1, 2))  # its optimum and above are left
    table = search(short, possible({4e18: DECADES}))
    (label,) = set(table.row.tolist())
    chosen = []
    for run in table.short_rows():
        table.take([run])
        chosen.append(DECADES[run])
    assert -0.8 < chosen[0] < -0.5  # not farther from the optimum, however far from the others
    assert len(np.unique(table.sizes[label])) == SIZES_PER_ROW


def scattered(count=30):
    rng = np.random.default_rng(0)
    C = 10 ** rng.uniform(17, 20, count)
    rows = {float(budget): (rng.uniform(-0.7, 0.7),) for budget in C}
    runs = possible(rows)
    noise = 0.003 * rng.standard_normal(count)
    return runs.assign(loss=LAW.loss(runs["num_params"], runs["num_tokens"]) * np.exp(noise))


def test_where_runs_lie_in_no_rows_each_is_taken_by_itself():
    table = search(found(scattered()), possible({3e19: DECADES, 3e20: DECADES}))
    assert not table.in_rows
    assert list(table.short_rows()) == list(table.beyond_edges()) == []
    assert len(best(table)) == 1


def test_a_sweep_takes_no_run_by_itself_where_few_sizes_are_left(findings):
    left = possible({7e17: (-0.2,), 4e17: (0.1,)})
    assert not search(findings, left).in_rows
    kept = Search.of(findings, TARGET, left, None, "num_params", in_rows=True)
    assert best(kept) == []


def test_where_the_candidates_lie_in_no_rows_each_is_taken_by_itself(findings):
    ladder = possible({float(C): (0.1,) for C in np.geomspace(2e20, 2e21, 8)})
    table = search(findings, ladder)
    assert not table.in_rows
    assert len(best(table)) == 1


def test_runs_under_way_count_as_made_and_cannot_be_taken(findings):
    candidates, waiting = possible({3e20: DECADES}), possible({3e20: (-0.5, -0.2, 0.2, 0.5)})
    table = search(findings, candidates, waiting)
    alone = search(findings, candidates)
    assert not table.free[len(candidates) :].any()
    assert (table.uncertainty.log_variances()[:2] < alone.uncertainty.log_variances()[:2]).all()
    assert len(best(table)) == 1  # the row has been begun
    near = np.abs(DECADES) < 0.6
    gains = [one.uncertainty.gains()[1, : len(candidates)][near] for one in (table, alone)]
    assert (gains[0] < gains[1]).all()


def test_a_certain_answer_asks_for_nothing(findings):
    sure = with_misfit(findings, 0.0)
    table = search(sure, possible({1e20: DECADES}))
    table.uncertainty = replace(table.uncertainty, parts=0 * table.uncertainty.parts)
    assert best(table) == []


def test_the_top_rises_once_a_row_beyond_it_has_four_sizes(findings):
    table = search(with_misfit(findings, 10.0), possible({3e20: DECADES}))
    assert table.top == 1e20
    table.take([2, 5, 8])
    assert table.top == 1e20
    table.take([11])
    assert table.top == 3e20
    assert search(findings, possible({3e20: DECADES}), possible({1e21: DECADES})).top == 1e21


def test_where_runs_lie_in_no_rows_the_top_is_the_largest_budget():
    runs = scattered()
    table = search(found(runs), possible({3e20: DECADES}))
    assert table.top == pytest.approx(runs["compute_budget"].max())
    table.take([8])
    assert table.top == 3e20


@pytest.mark.parametrize("side", [-1, 1])
def test_where_the_expected_optimum_cannot_be_built_a_row_lies_within_what_can(findings, side):
    decades = side * np.linspace(0.3, 2.3, 33)
    runs = best(search(findings, possible({3e20: decades})))
    assert len(runs) == SIZES_PER_ROW
    assert np.ptp(decades[runs]) > 0.5


def test_no_dear_row_is_begun_for_a_last_small_step(findings):
    table = search(with_misfit(findings, 30.0), possible({1e20: DECADES, 3e20: DECADES}))
    weights = np.r_[1.0, 0.5, np.zeros(table.uncertainty.num_answers - 2)]
    dear = table.best(weights, 10, np.inf)
    cheap = table.best(weights, 10, np.inf, needed=0.001)
    assert table.flops[cheap].sum() < table.flops[dear].sum()
    assert table.uncertainty.gains()[table.aim, cheap].sum() > 0
    assert table.best(weights, 10, np.inf, needed=1e6) == dear
