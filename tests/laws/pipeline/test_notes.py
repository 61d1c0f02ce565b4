import numpy as np
import pytest
from checked import severities

from flops_fit.laws.model.repetition_law import RepetitionLaw
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
