import subprocess
import sys

import pytest

import flops_fit

HEAVY = ("torch", "mlflow", "optuna", "scipy", "matplotlib", "pandas", "numpy", "accelerate")


def test_importing_loads_nothing_heavy():
    code = f"import sys, flops_fit; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_frozen():
    assert flops_fit.__all__ == [
        "BudgetSuggestion",
        "FlopsFitError",
        "FlopsFitWarning",
        "Forecast",
        "Prediction",
        "Recipe",
        "Result",
        "SweepPlan",
        "analyze",
        "find_optimal",
        "fit",
        "load_forecast",
        "plan_sweep",
        "score",
        "suggest_budgets",
    ]
    assert all(getattr(flops_fit, name) for name in flops_fit.__all__)
    assert set(flops_fit.__all__) <= set(dir(flops_fit))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fit_everything'"):
        flops_fit.fit_everything  # noqa: B018
