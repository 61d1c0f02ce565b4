from dataclasses import replace

import pytest
from measures import measured_runs

from flops_fit.report.plots import panels
from flops_fit.result import fit


@pytest.fixture(scope="module")
def result():
    return fit(measured_runs(), metrics=["accuracy", "error", "coin"], num_draws=100)


def test_each_metric_has_two_panels(result):
    axes = result.plot("metrics").axes
    assert len(axes) == 6
    assert [ax.get_ylabel() for ax in axes[:2]] == ["accuracy", "accuracy"]
    assert [ax.get_xlabel() for ax in axes[:2]] == ["compute budget C, FLOPs", "held-out loss"]
    assert "No forecast of coin" in axes[4].texts[0].get_text().replace("\n", " ")


def test_the_report_has_them_by_number(result):
    names = [panel.name for panel in panels.panels_of(result.findings)]
    assert names[-6:] == [f"metric_{i}{end}" for i in range(3) for end in ("", "_loss")]


@pytest.mark.parametrize("metrics", [{}])
def test_without_metrics_the_figure_says_so(result, metrics):
    bare = replace(result, findings=replace(result.findings, metrics=metrics))
    (ax,) = bare.plot("metrics").axes
    assert "have no metrics" in ax.texts[0].get_text().replace("\n", " ")
