from dataclasses import replace

import numpy as np
import pytest
from checked import severities

from flops_fit.display.number_text import count
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.fit_data import read_fit_data
from flops_fit.laws.pipeline.headline import settle_repetition
from flops_fit.laws.runs.table import read_runs
from flops_fit.result import fit


@pytest.mark.slow
def test_a_screen_that_would_drop_too_many_runs_is_refused(sound):
    bad = sound.copy()
    bad.loc[[1, 4, 9, 12, 17, 20, 25, 28, 33], "loss"] *= 1.1
    assert severities(bad)["screen-refused"] == "refuse"
    assert fit(bad).fits["headline"].delta == 1e-3
    assert "screen-refused" not in severities(sound)


def test_exponent_at_bound(sound, rough_runs):
    assert severities(rough_runs, form="five")["exponent-at-bound"] == "refuse"
    assert "exponent-at-bound" not in severities(sound)
    result = fit(rough_runs, form="five")
    assert result.law is None
    assert result.fits["five"].at_bound == ("alpha",)
    assert result.predict(1e11).num_params == pytest.approx(result.power_laws.n_opt(1e11))


def test_a_fit_that_fails_raises_a_check(sound):
    assert "fit-failed" not in severities(sound)
    result = fit(sound.assign(loss=-1.0))  # nothing to lift the losses by
    assert {check.code: check.severity for check in result.checks}["fit-failed"] == "refuse"
    assert result.law is None
    assert len(result.optima) == 5


@pytest.mark.parametrize(("factor", "where"), [(0.8, "below"), (0.97, "below"), (1.1, "above")])
def test_a_run_that_is_out_of_line_is_named(sound, factor, where):
    bad = sound.copy()
    bad.loc[17, "loss"] *= factor
    result = fit(bad)
    assert result.runs.loc[17, "excluded"] == f"outlier: loss far {where} the law"
    assert (result.runs["excluded"] != "").sum() == 1
    low, high = result.predict(1e15).loss_interval
    assert low < fit(sound).predict(1e15).loss < high


@pytest.mark.parametrize("seed", [0, 4, 5])
def test_suspected_runs_are_named_and_the_intervals_hold_both_answers(sweep, seed):
    runs = sweep(budgets=3, sizes=5, noise=0.003, seed=seed)
    runs.loc[[3, 7], "loss"] *= [1.016, 0.984]
    result = fit(runs)
    (check,) = [check for check in result.checks if check.code == "suspected-outliers"]
    assert check.severity == "warn"
    for run in (3, 7):
        assert f"N = {count(runs.loc[run, 'num_params'])}" in check.message
    low, high = result.intervals.loc["a", ["low", "high"]]
    without = fit(runs.drop(index=[3, 7]), form=result.fits["headline"].form)
    assert low < without.law.a < high
    assert low < result.law.a < high


@pytest.mark.parametrize(("other", "told"), [(8.0, False), (8.6, False), (5.0, True), (20.0, True)])
def test_objectives_that_disagree_on_the_constant_of_repetition_widen_its_error(
    sound, small, other, told
):
    data = read_fit_data(read_runs(sound)[0], Options())
    law = RepetitionLaw(small, 8.0, fading_error=0.005)
    found = replace(data, repetition=law)
    finished = replace(data, repetition=replace(law, r_data=other))
    settled, checks = settle_repetition(found, finished, 1e-3)
    assert [check.code for check in checks] == ["repetition-unsettled"] * told
    expected = np.hypot(0.005, 1 / 8.0 - 1 / other) if told else 0.005
    assert settled.repetition.fading_error == pytest.approx(expected)
