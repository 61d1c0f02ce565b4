"""CPU, memory, disk, network and GPU readings while a trial trains, by MLflow's own monitors.

Off unless `MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true`, as in MLflow. Readings are points of the
training curve, with the names that MLflow's *System metrics* page expects.
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
    """A function that takes all readings of this machine; it returns none if they are off."""
    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return dict
    kinds: tuple[Any, ...] = (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor)
    candidates = [_start(kind) for kind in kinds]
    monitors = [candidate for candidate in candidates if candidate is not None]

    def read() -> dict[str, float]:
        readings: dict[str, float] = {}
        for each in monitors:
            each.collect_metrics()
            readings |= each.aggregate_metrics()
            each.clear_metrics()
        return {f"system/{name}": float(value) for name, value in readings.items()}

    return read


def _start(kind: Any) -> Any:
    """A monitor; None where this machine has no such device, or its library is not installed."""
    try:
        return kind()
    except (ImportError, RuntimeError):
        return None
