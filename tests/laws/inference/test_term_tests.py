from dataclasses import replace

import numpy as np
import pytest

from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.inference.term_tests import check_terms, p_value
from flops_fit.laws.runs.points import Points


@pytest.mark.parametrize("delta", [None, 1e-3])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_both_terms_of_a_sound_sweep_are_seen(named_law, sweep, noise, delta):
    points = Points.from_runs(sweep(noise=noise))
    assert check_terms(fit_parametric(points, delta=delta), points) == []


@pytest.mark.parametrize(("alone", "unseen"), [("N", "D"), ("D", "N")])
def test_a_missing_term_is_refused(sweep, alone, unseen):
    points = Points.from_runs(sweep())
    rng = np.random.default_rng(0)
    column = points.N if alone == "N" else points.D
    points = replace(points, loss=(1 + 66 / column**0.35) * np.exp(0.003 * rng.normal(size=35)))
    (check,) = check_terms(fit_parametric(points), points)
    assert (check.code, check.severity) == ("unseen-term", "refuse")
    assert f"falls with {unseen} (" in check.message


@pytest.mark.slow
def test_p_values_have_their_level_without_a_term(sweep):
    """The F test is approximate: without A there is no alpha. It is wrong by less than twice."""
    sound = Points.from_runs(sweep())
    rng = np.random.default_rng(1)
    found = []
    for _ in range(60):
        points = replace(sound, loss=3 * np.exp(0.01 * rng.normal(size=35)))
        found.append(p_value(fit_parametric(points), replace(points, N=np.ones(35))))
    assert np.mean(np.array(found) < 0.05) < 0.1
    assert np.mean(found) > 0.3
