"""What the tests of planning plan for."""

from flops_fit import Recipe

BUDGETS = [1e9, 1e10]
UNLIMITED = Recipe(max_epochs=1e12, pilot=False)
