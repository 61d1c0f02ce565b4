import numpy as np
import pytest
from checked import severities
from named_laws import bent

from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.result import fit


def test_a_tied_form_is_noted(sound):
    assert severities(sound, form="tied")["form"] == "note"
    assert "form" not in severities(sound)


def test_unique_tokens_lead_to_a_law_of_effective_tokens(sound, small):
    U = np.full(len(sound), 3e6)
    loss = RepetitionLaw(small, 15.39, np.inf).loss(sound["num_params"], sound["num_tokens"], U)
    result = fit(sound.assign(unique_tokens=U, loss=loss))
    codes = {check.code: check.severity for check in result.checks}
    assert codes["effective-tokens"] == "note"
    assert codes["many-epochs"] == "warn"
    assert result.law.a == pytest.approx(small.a, abs=1e-6)
    assert "effective-tokens" not in severities(sound.assign(unique_tokens=1e15))


def test_sizes_that_share_an_error(sweep, sound):
    shared = sweep(noise=0.001, shared_noise=0.006, seed=1)
    assert severities(shared)["shared-errors"] == "note"
    assert "shared-errors" not in severities(sound)


@pytest.mark.parametrize(("gamma", "code"), [(0.5, "form"), (0.05, "gamma-at-bound")])
def test_a_law_that_bends_is_noted(small, gamma, code):
    """At the bound the law is all but the larger of its two terms, and still predicts."""
    law = bent(small, gamma)
    runs = simulate_isoflop(law, np.geomspace(1e12, 1e14, 5), noise=0.001, seed=1)
    result = fit(runs, num_draws=100)
    assert result.fits["headline"].form == "bent"
    codes = {check.code: check.severity for check in result.checks}
    assert codes[code] == "note"
    assert ("gamma-at-bound" in codes) == (result.law.gamma == pytest.approx(0.1))
    assert result.predict(1e14).num_params == pytest.approx(law.n_opt(1e14), rel=0.1)
