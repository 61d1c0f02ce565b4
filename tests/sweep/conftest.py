"""A plan that several tests change."""

import pytest
from planned import BUDGETS, UNLIMITED

from flops_fit import plan_sweep


@pytest.fixture
def planned(mlp, classes, cross_entropy):
    """A plan of the small perceptron; keywords change it."""

    def plan(**changes):
        arguments = {
            "model_cls": mlp,
            "model_size_param": "width",
            "dataset": classes,
            "loss_fn": cross_entropy,
            "compute_budgets": BUDGETS,
            "recipe": UNLIMITED,
        }
        return plan_sweep(**{**arguments, **changes})

    return plan
