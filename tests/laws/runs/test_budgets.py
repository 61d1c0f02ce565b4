import numpy as np

from flops_fit.laws.runs.budgets import group_budgets


def test_budgets_with_scatter_are_grouped():
    C = np.array([1.02e18, 0.98e18, 1e18, 3.05e18, 2.95e18, 9.3e18])
    assert group_budgets(C).tolist() == [0, 0, 0, 1, 1, 2]
    assert group_budgets(np.geomspace(1e18, 1e19, 20), 0.01).max() == 19
