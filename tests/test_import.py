import subprocess
import sys
from pathlib import Path

import pytest

import flops_fit

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "mlflow", "optuna", "scipy", "matplotlib", "pandas", "numpy", "accelerate")


def test_importing_loads_nothing_heavy():
    code = f"import sys, flops_fit; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


LIGHT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
# What `pip install --no-deps` and the README's packages leave out.
ABSENT = ("torch", "mlflow", "optuna", "accelerate", "cloudpickle", "filelock", "psutil", "yaml")
ABSENT += ("tqdm", "tabulate", "sqlalchemy", "pyarrow")
USES = {
    "the calls": """
import flops_fit
from flops_fit.report import slider_data
slider_data.RATIOS_PER_DECADE, slider_data.SHORTAGES, slider_data.STOPS_PER_DECADE = 1, (0.0,), 5
result = flops_fit.fit("examples/runs.csv", num_draws=100)
C = result.largest_budget
result.predict(2 * C), result.predict_loss(1e4, 1e6), result.chinchilla_table()
assert len(flops_fit.suggest(result, target=10 * C, n=2)) == 2
result.plot().savefig("{folder}/plot.png")
result.report("{folder}/report.html")
result.save("{folder}/saved")
flops_fit.compare(result, result).at(C)
assert flops_fit.Result.load("{folder}/saved").predict(2 * C).loss == result.predict(2 * C).loss
print(flops_fit.score([result.forecast(2 * C, path="{folder}")], loss=2.2)["loss"], repr(result))
""",
    "the command": """
from flops_fit.cli import main
main(["suggest", "examples/runs.csv", "--target", "1e14"], standalone_mode=False)
main(["fit", "examples/runs.csv"])
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
def test_a_table_is_fitted_without_torch_mlflow_and_optuna(use, tmp_path):
    code = LIGHT.replace("{absent}", str(ABSENT)) + USES[use].replace("{folder}", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "28 runs" in done.stdout


def test_without_what_training_needs_a_call_says_how_to_install_it():
    code = LIGHT.replace("{absent}", str(ABSENT)) + "import flops_fit; flops_fit.find_optimal"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "flops_fit.find_optimal needs " in done.stderr
    assert "`pip install .` in the checkout" in done.stderr


def test_public_names_are_frozen():
    assert flops_fit.__all__ == [
        "BudgetSuggestion",
        "Comparison",
        "FlopsFitError",
        "FlopsFitWarning",
        "Forecast",
        "Prediction",
        "Recipe",
        "Result",
        "SweepPlan",
        "analyze",
        "compare",
        "find_optimal",
        "fit",
        "load_forecast",
        "load_model",
        "plan_sweep",
        "score",
        "suggest",
        "suggest_budgets",
    ]
    assert all(getattr(flops_fit, name) for name in flops_fit.__all__)
    assert set(flops_fit.__all__) <= set(dir(flops_fit))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fit_everything'"):
        flops_fit.fit_everything  # noqa: B018
