import numpy as np
import pandas as pd
import pytest

from flops_fit.errors import FitError, TableError
from flops_fit.laws.fitting.envelope import fit_envelope


def make_curves(law, sizes=41, ended=True):
    N = np.geomspace(1e4, 1e8, sizes)
    D = np.geomspace(1e4, 1e10, 300)
    rows = [
        pd.DataFrame(
            {"trial_id": f"t{i}", "num_params": n, "num_tokens": D, "loss": law.loss(n, D)}
        )
        for i, n in enumerate(N)
    ]
    return pd.concat(rows, ignore_index=True).assign(ended=ended)


def test_planted_exponent(small):
    envelope, laws = fit_envelope(make_curves(small), num_points=120)
    assert laws.n_opt.exponent == pytest.approx(small.a, abs=0.01)
    assert laws.d_opt.exponent == pytest.approx(small.b, abs=0.01)
    C = envelope["compute_budget"].to_numpy()
    np.testing.assert_allclose(envelope["loss"], small.l_opt(C), rtol=0.005)
    assert (envelope["loss"] >= small.l_opt(C) * (1 - 1e-3)).all()


def test_mid_schedule_points_are_used_on_request_only(small):
    curves = make_curves(small, ended=False)
    with pytest.raises(FitError, match="schedule had ended"):
        fit_envelope(curves)
    assert len(fit_envelope(curves, unfinished=True)[0]) > 10
    with pytest.raises(FitError, match="schedule had ended"):
        fit_envelope(curves.drop(columns="ended"))


def test_missing_columns_are_reported(small):
    with pytest.raises(TableError, match="num_params"):
        fit_envelope(make_curves(small).drop(columns="num_params"))


def test_too_few_runs_give_no_envelope(small):
    with pytest.raises(FitError, match="points"):
        fit_envelope(make_curves(small, sizes=2))
