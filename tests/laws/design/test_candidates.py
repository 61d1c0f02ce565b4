"""Candidates on a lattice of budgets and sizes."""

import numpy as np
import pytest
from designs import BUDGETS, found, possible, sweep

from flops_fit.laws.design.candidates import (
    BUDGETS_APART,
    COLUMNS,
    REACH,
    SIZES_APART,
    expected_optima,
    ladder,
    lattice,
)


@pytest.mark.parametrize("budgets", [[1e18, 1e20], [1e20, 1e18, 3e18], [5e15], [1e18, 1.2e18]])
def test_a_ladder_keeps_the_budgets_and_fills_what_lies_between(budgets):
    found = ladder(budgets)
    assert found == sorted(found)
    assert set(budgets) <= set(found)
    assert (found[0], found[-1]) == (min(budgets), max(budgets))
    assert (np.diff(np.log10(found)) < 1.5 * BUDGETS_APART).all()


def test_a_lattice_has_the_same_sizes_at_every_budget_around_its_optimum(findings):
    budgets = [1e17, 3e18, 5e20]
    table = lattice(findings, budgets)
    assert tuple(table) == COLUMNS
    optima = expected_optima(findings, budgets) / np.log(10)
    for budget, optimum in zip(budgets, optima, strict=True):
        sizes = np.log10(table["num_params"][table["compute_budget"] == budget])
        assert np.abs(sizes - optimum).max() <= REACH + 0.01
        assert len(sizes) >= 2 * REACH / SIZES_APART
        np.testing.assert_allclose(sizes / SIZES_APART, (sizes / SIZES_APART).round(), atol=0.02)
    np.testing.assert_allclose(table["flops"], 6 * table["num_params"] * table["num_tokens"])


def test_its_sizes_are_round_numbers(findings):
    assert all(float(f"{N:.3g}") == N for N in lattice(findings, [3e18])["num_params"])


def test_where_a_run_has_been_made_there_is_no_candidate(findings, design_runs):
    table = lattice(findings, BUDGETS)
    for C in BUDGETS:
        made = np.log10(design_runs["num_params"][design_runs["compute_budget"] == C].to_numpy())
        free = np.log10(table["num_params"][table["compute_budget"] == C].to_numpy())
        assert np.abs(free[:, None] - made).min() > 0.4 * SIZES_APART


def test_nor_where_one_is_under_way(findings):
    waiting = possible({3e20: (-0.5, 0.0)})
    without = lattice(findings, [3e20], waiting)
    assert len(lattice(findings, [3e20])) == len(without) + 2


def test_with_measured_costs_the_budget_is_spent():
    runs = sweep()
    f = 6 * runs["num_params"] + 2e6 * runs["num_params"] ** 0.5
    flops = f * runs["num_tokens"]
    table = lattice(found(runs.assign(flops=flops, compute_budget=flops)), [1e19])
    spent = (6 * table["num_params"] + 2e6 * table["num_params"] ** 0.5) * table["num_tokens"]
    np.testing.assert_allclose(spent, 1e19, rtol=0.05)
