"""Former names of documented modules, which stay importable.

`from flops_fit.sweep.grid import SweepPlan` gives the class that is now in `flops_fit.sweep_plan`.
The modules are found by an import hook, so that no folder holds files for the sake of old names.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "flops_fit.prediction": "flops_fit.laws.predict.prediction",
    "flops_fit.laws.parametric": "flops_fit.laws.model.parametric_law",
    "flops_fit.laws.power": "flops_fit.laws.model.power_law",
    "flops_fit.sweep.estimate": "flops_fit.sweep.forecast.estimate",
    "flops_fit.sweep.grid": "flops_fit.sweep_plan",
    "flops_fit.sweep.precision": "flops_fit.sweep.forecast.precision",
    "flops_fit.sweep.recipe": "flops_fit.sweep.training.recipe",
}


class _Finder(MetaPathFinder, Loader):
    """Finds the module that now has another name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        # The import system returns what stands in `sys.modules` afterwards: the module itself.
        sys.modules[module.__name__] = importlib.import_module(MOVED[module.__name__])


def keep_importable() -> None:
    """Install the import hook; called once, when the package is imported."""
    sys.meta_path.append(_Finder())
