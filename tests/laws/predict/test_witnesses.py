import numpy as np
import pandas as pd
import pytest
from planted import LAW, runs

from flops_fit import fit
from flops_fit.laws.predict.witnesses import (
    DRIFT,
    Witness,
    best_size,
    combined,
    drift,
    other_witnesses,
)

C = np.array([1e14, 1e15])


def witness(value, half):
    return Witness("one", np.array([value]), np.array([half]))


@pytest.fixture(scope="module")
def findings():
    return fit(runs()).findings


def test_two_witnesses_count_by_the_inverse_of_their_variance():
    best, weights = combined([witness(1.0, 0.1), witness(2.0, 0.2)])
    np.testing.assert_allclose(weights[:, 0], [0.8, 0.2])
    assert best.value[0] == pytest.approx(1.2)
    assert 0.08 < best.half[0] < 0.12


def test_a_witness_without_an_interval_does_not_count():
    for unknown in (np.inf, np.nan):
        best, weights = combined([witness(1.0, 0.1), witness(2.0, unknown)])
        assert weights[:, 0].tolist() == [1.0, 0.0]
        assert (best.value[0], best.half[0]) == pytest.approx((1.0, 0.1))


def test_the_first_counts_where_none_has_an_interval():
    best, _ = combined([witness(1.0, np.nan), witness(2.0, np.inf)])
    assert best.value[0] == 1.0


def test_a_straight_line_drifts_less_than_expected_and_a_bent_one_more():
    t = np.linspace(0, 5, 8)
    straight, curved = drift(t, 0.5 * t), drift(t, 0.5 * t + 0.2 * t * t)
    assert straight < DRIFT < curved
    assert drift(t[:3], t[:3]) == pytest.approx(DRIFT)


def test_drift_does_not_depend_on_the_order_of_the_points():
    t = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    x = np.array([0.0, 0.6, 0.9, 1.7, 1.8])
    order = [3, 0, 4, 1, 2]
    assert drift(t, x) == pytest.approx(drift(t[order], x[order]))


def test_rows_count_less_the_farther_the_budget(findings):
    best, weights = best_size(findings, C, np.array([0.05, 0.08]))
    assert set(weights) == {"parametric law", "IsoFLOP rows"}
    assert 0 < weights["IsoFLOP rows"][1] < weights["IsoFLOP rows"][0] < 0.5
    np.testing.assert_allclose(best.value, np.log(LAW.n_opt(C)), atol=0.1)


def test_an_envelope_of_ended_curves_is_a_witness_and_an_unfinished_one_is_not():
    table = runs()
    table = table.assign(trial_id=[f"t{i}" for i in range(len(table))])
    points = [
        {"trial_id": run.trial_id, "num_tokens": run.num_tokens * s, "loss": run.loss * more}
        for run in table.itertuples()
        for s, more in ((0.3, 1.15), (1.0, 1.0))
    ]
    curves = pd.DataFrame(points).assign(ended=lambda p: p.index % 2 == 1)
    ended = fit(table, curves=curves, num_draws=100).findings
    assert [w.name for w in other_witnesses(ended, C)] == ["IsoFLOP rows", "envelope"]
    going = fit(table, curves=curves, unfinished_curves=True, num_draws=100).findings
    assert [w.name for w in other_witnesses(going, C)] == ["IsoFLOP rows"]


def test_repeated_data_leaves_the_law_alone():
    table = runs()
    table["unique_tokens"] = table["num_tokens"] / np.tile([1.0, 3, 1, 2, 1, 4, 1], 5)
    findings = fit(table, num_draws=100).findings
    assert findings.repetition is not None
    assert other_witnesses(findings, C) == []
