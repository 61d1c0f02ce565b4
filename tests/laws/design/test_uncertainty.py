"""What further runs do to the uncertainty of an answer, before they are trained."""

from dataclasses import replace

import numpy as np
import pytest
from designs import TARGET, possible, with_misfit

from flops_fit.laws.design.uncertainty import (
    LEAST_MISFIT,
    LOSS,
    SIZE,
    Uncertainty,
    _with_misfit,
    drift_of,
)

TESTS = (1e18, 1e20)
RUNS = possible({1e18: (-0.9, 0.2, 0.9), 2e19: (-0.4, 0.1, 0.1), 1e20: (0.3,)})


def uncertainty(findings, candidates=RUNS, target=TARGET):
    return Uncertainty.of(findings, target, TESTS, candidates)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 100.0])
def test_after_a_run_it_is_the_posterior_with_that_run_among_the_others(findings, ratio):
    one = with_misfit(findings, ratio)
    law = one.misfit.laws[0]
    added, rest = 3, [0, 1, 2, 4, 5, 6]
    x, y = (
        np.log(RUNS[name].iloc[added]) - centre
        for name, centre in zip(("num_params", "num_tokens"), law.fit.centre, strict=False)
    )
    cells = law.cells
    more = replace(
        cells,
        x=np.append(cells.x, x),
        y=np.append(cells.y, y),
        residual=np.append(cells.residual, 0.0),
        weight=np.append(cells.weight, 1.0),
    )
    # The spans of the runs, in which lengths are given, stay: the run lies between the others.
    trained = replace(one, misfit=replace(one.misfit, laws=(replace(law, cells=more),)))
    q = 2 + len(TESTS)
    keep = [*range(q), *(q + i for i in rest)]
    expected = uncertainty(trained).parts[:, keep][:, :, keep]
    after = uncertainty(one).after([added], 0.0).parts[:, keep][:, :, keep]
    # The answer is where the loss is least, which the corrected loss moves a little.
    np.testing.assert_allclose(
        after[:, q:, q:], expected[:, q:, q:], rtol=1e-6, atol=1e-9 * np.abs(expected).max()
    )
    variances = [np.diag(part[0])[:2] for part in (after, expected)]
    np.testing.assert_allclose(*variances, rtol=0.05)


def test_it_is_that_of_the_predictions(findings):
    for ratio in (0.0, 3.0):
        one = with_misfit(findings, ratio)
        _, half = one.misfit.optima(np.array([TARGET]), one.cost)
        error = np.exp(uncertainty(one).log_variances()[SIZE] / 2)
        assert one.misfit.quantile * error == pytest.approx(half[0], rel=1e-6)


def test_the_loss_at_the_target_is_that_of_a_run_there(findings):
    one = with_misfit(findings, 3.0)
    x, _ = one.misfit.optima(np.array([TARGET]), one.cost)
    y = np.log(TARGET / 6) - x
    losses = one.misfit.losses(x, y)
    error = np.exp(uncertainty(one).log_variances()[LOSS] / 2)
    half = np.log(losses.high / losses.low)[0] / 2
    assert one.misfit.quantile * error == pytest.approx(half, rel=0.05)


def test_gains_are_those_of_single_runs_and_add_up_over_steps(findings):
    start = uncertainty(findings)
    gains = start.gains()
    singly = np.stack([start.gain([i], 0.0) for i in range(len(RUNS))], axis=1)
    np.testing.assert_allclose(gains, singly, atol=1e-10)
    assert (gains > -1e-10).all()
    after = start.after([0], 0.0)
    together = start.log_variances() - after.after([4], 0.0).log_variances()
    np.testing.assert_allclose(start.gain([0, 4], 0.0), together, atol=1e-9)
    np.testing.assert_allclose(start.gain([0], 0.0) + after.gain([4], 0.0), together, atol=1e-9)


def test_what_a_run_has_told_its_double_tells_less(findings):
    start = uncertainty(with_misfit(findings, 10.0))
    again = start.after([4], 0.0).gains()  # 4 and 5 are the same run
    assert (again[:2, 5] < 0.75 * start.gains()[:2, 5]).all()


def test_under_the_law_alone_runs_far_out_tell_the_answer_and_with_a_misfit_they_do_not(findings):
    candidates = possible({1e18: (-1.0, -0.9, 0.9, 1.0), 1e21: (-0.5, -0.2, 0.2, 0.5)})
    far, near_target = [0, 1, 2, 3], [4, 5, 6, 7]
    alone, wrong = (
        [uncertainty(with_misfit(findings, ratio), candidates).gain(runs, 0.0)[SIZE] for runs in
         (far, near_target)] for ratio in (0.0, 30.0)
    )  # fmt: skip
    assert alone[0] > 0.2 * alone[1]  # for a thousandth of the FLOPs
    assert wrong[0] < 0.1 * wrong[1]


def test_the_misfit_is_held_possible_however_improbable_it_is(findings):
    law = findings.misfit.laws[0]
    wrong = np.array([setting.ratio > 0 for setting in law.settings])
    given = np.array([setting.weight for setting in law.settings])
    assert 0 < given[wrong].sum() < LEAST_MISFIT
    weights = _with_misfit(law, LEAST_MISFIT)
    assert weights.sum() == pytest.approx(1)
    assert weights[wrong].sum() == pytest.approx(LEAST_MISFIT)
    np.testing.assert_allclose(weights[wrong] / given[wrong], (weights / given)[wrong][0])


@pytest.mark.parametrize("ratio", [0.0, 10.0])
def test_a_misfit_that_is_certain_or_impossible_keeps_its_probability(findings, ratio):
    law = with_misfit(findings, ratio).misfit.laws[0]
    assert _with_misfit(law, LEAST_MISFIT).tolist() == [1.0]
    assert np.isfinite(uncertainty(with_misfit(findings, ratio)).log_variances()).all()


def test_the_law_is_tested_where_it_may_be_wrong(findings):
    """Of the answers, the last two are variances under the settings with a misfit alone."""
    found = uncertainty(findings)
    none = replace(found, of_misfit=found.weights)
    change = found.log_variances() - none.log_variances()
    assert change[:2].tolist() == [0, 0]
    assert (change[2:] != 0).all()


def test_the_drift_beyond_the_rows_counts_for_n_and_falls_with_their_reach(findings):
    wrong = with_misfit(findings, 10.0)
    drifts = [drift_of(wrong, TARGET, top) for top in (1e20, 1e21, TARGET, 10 * TARGET)]
    assert drifts[0] == pytest.approx(4 * drifts[1])
    assert drifts[2:] == [0.0, 0.0]
    assert drift_of(with_misfit(findings, 0.0), TARGET, 1e20) == 0.0
    start = replace(uncertainty(wrong), drift=drifts[0])
    less = start.gain([0], drifts[1]) - start.gain([0], drifts[0])
    assert less[SIZE] > 0
    assert (less[1:] == 0).all()
