import pytest
from checked import severities

from flops_fit.result import fit


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
