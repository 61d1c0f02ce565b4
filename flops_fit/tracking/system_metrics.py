"""What the machine is doing while a trial trains, by MLflow's own monitors; by choice.

Asked for as MLflow has it: `MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true`. Readings are points of the
training curve, named as MLflow's *System metrics* page wants them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor


def monitor() -> Callable[[], dict[str, float]]:
    """A function that reads all there is to read; one that reads nothing where nobody asked."""
    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return dict
    kinds: tuple[Any, ...] = (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor)
    monitors = [made for kind in kinds if (made := _made(kind)) is not None]

    def read() -> dict[str, float]:
        found: dict[str, float] = {}
        for each in monitors:
            each.collect_metrics()
            found |= each.aggregate_metrics()
            each.clear_metrics()
        return {f"system/{name}": float(value) for name, value in found.items()}

    return read


def _made(kind: Any) -> Any:
    """A monitor, or None where this machine or environment has nothing for it to read."""
    try:
        return kind()
    except (ImportError, RuntimeError):
        return None
