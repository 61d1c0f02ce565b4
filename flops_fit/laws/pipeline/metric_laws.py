"""The laws of all metrics of a sweep, from the runs that the law of the loss was fitted to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flops_fit.laws.findings import Findings
from flops_fit.laws.metrics.columns import MetricColumn
from flops_fit.laws.metrics.fit import FittedRuns, fit_metric
from flops_fit.laws.metrics.law import MetricLaw
from flops_fit.laws.pipeline.fit_data import FitData

NO_LAW = "no law of the loss was fitted, at whose optimum it would be forecast."


def fit_metrics(
    findings: Findings, data: FitData, metrics: Sequence[MetricColumn], tolerance: float
) -> dict[str, MetricLaw]:
    """Fit the law of each metric.

    Args:
        findings: The law of the loss.
        data: The runs that it was fitted to.
        metrics: The metrics.
        tolerance: Budgets that differ by less than this share are one.

    Returns:
        The laws by name; those that the runs do not determine have a reason in `refused`.
    """
    if findings.law is None:
        return {m.name: MetricLaw(m.name, m.column, refused=NO_LAW) for m in metrics}
    low, high = findings.interval(lambda laws: laws[:, :1])
    runs = FittedRuns(
        data.points,
        data.counted.N,
        data.C,
        findings.fits["headline"],
        (float(low[0]), float(high[0])),
        data.repetition is not None,
        tolerance,
    )
    with np.errstate(all="ignore"):
        return {
            m.name: fit_metric(m, findings.fitted_runs[m.column].to_numpy(float), runs)
            for m in metrics
        }
