import importlib
import subprocess
import sys

import pytest

import flops_fit

NAMES = {
    "flops_fit.laws.checks": "Check",
    "flops_fit.laws.parametric": "ParametricLaw",
    "flops_fit.laws.power": "PowerLaws",
    "flops_fit.prediction": "Prediction",
    "flops_fit.records": "Trial",
    "flops_fit.result": "Result",
    "flops_fit.sweep.estimate": "Estimate",
    "flops_fit.sweep.grid": "SweepPlan",
    "flops_fit.sweep.precision": "Precision",
    "flops_fit.sweep.recipe": "Recipe",
}


@pytest.mark.parametrize("module", NAMES)
def test_documented_deep_names_stay_importable(module):
    name = NAMES[module]
    found = getattr(importlib.import_module(module), name)
    assert found.__name__ == name
    assert found is getattr(flops_fit, name, found)


def test_a_name_that_never_was_is_an_import_error():
    with pytest.raises(ImportError, match="nothing"):
        from flops_fit.sweep.grid import nothing  # noqa: F401


LIGHT = """
import flops_fit.prediction as prediction
from flops_fit.laws.power import PowerLaws
import flops_fit.laws.predict.prediction
assert prediction is flops_fit.laws.predict.prediction
from flops_fit.laws.parametric import *
assert ParametricLaw
"""
HEAVY = """
import flops_fit.sweep.grid as grid
from flops_fit.sweep.estimate import Estimate
import flops_fit.sweep_plan
assert grid is flops_fit.sweep_plan
"""


@pytest.mark.parametrize("code", [LIGHT, pytest.param(HEAVY, marks=pytest.mark.slow)])
def test_a_former_name_is_the_module_itself(code):
    """In a process of its own: nothing is imported before, in whatever order the names come."""
    subprocess.run([sys.executable, "-c", code], check=True)
