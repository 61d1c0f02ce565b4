"""Find how big a model to train, on how much data, for a compute budget, by experiment.

`find_optimal` plans an IsoFLOP sweep, trains it, and fits scaling laws to the finished runs. Its
parts can be called alone: `plan_sweep`, `analyze`, `fit` and `suggest`. Public names are imported
on first use, so that importing this package is fast and does not load torch, MLflow, Optuna, SciPy
or Matplotlib.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

from flops_fit.former_names import keep_importable
from flops_fit.version import __version__ as __version__

if TYPE_CHECKING:
    from flops_fit.api import analyze as analyze
    from flops_fit.api import find_optimal as find_optimal
    from flops_fit.api import plan_sweep as plan_sweep
    from flops_fit.api import suggest_budgets as suggest_budgets
    from flops_fit.comparison import Comparison as Comparison
    from flops_fit.comparison import compare as compare
    from flops_fit.errors import FlopsFitError as FlopsFitError
    from flops_fit.errors import FlopsFitWarning as FlopsFitWarning
    from flops_fit.fit_table import fit as fit
    from flops_fit.forecasts.files import load_forecast as load_forecast
    from flops_fit.forecasts.record import Forecast as Forecast
    from flops_fit.forecasts.scoring import score as score
    from flops_fit.laws.design.suggest import suggest as suggest
    from flops_fit.result import Prediction as Prediction
    from flops_fit.result import Result as Result
    from flops_fit.sweep.forecast.suggestion import BudgetSuggestion as BudgetSuggestion
    from flops_fit.sweep.kept.load import load_model as load_model
    from flops_fit.sweep.training.recipe import Recipe as Recipe
    from flops_fit.sweep_plan import SweepPlan as SweepPlan

_HOME_OF = {
    "BudgetSuggestion": "sweep.forecast.suggestion",
    "Comparison": "comparison",
    "FlopsFitError": "errors",
    "FlopsFitWarning": "errors",
    "Forecast": "forecasts.record",
    "Prediction": "result",
    "Recipe": "sweep.training.recipe",
    "Result": "result",
    "SweepPlan": "sweep_plan",
    "analyze": "api",
    "compare": "comparison",
    "find_optimal": "api",
    "fit": "fit_table",
    "load_forecast": "forecasts.files",
    "load_model": "sweep.kept.load",
    "plan_sweep": "api",
    "score": "forecasts.scoring",
    "suggest": "laws.design.suggest",
    "suggest_budgets": "api",
}

__all__ = sorted(_HOME_OF)
keep_importable()

# Optuna, Accelerate and MLflow import `tqdm.auto`, which warns in a notebook without ipywidgets.
# No bar here needs those (`display.bars`), so the warning would be in red for nothing.
warnings.filterwarnings("ignore", message="IProgress not found")


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'flops_fit' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"flops_fit.{_HOME_OF[name]}"), name)
    except ModuleNotFoundError as error:
        # The light way to install leaves out what only training needs.
        raise ModuleNotFoundError(
            f"flops_fit.{name} needs {error.name}, which is not installed; `pip install .` in the "
            "checkout installs all that flops-fit needs",
            name=error.name,
        ) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
