import numpy as np
import pytest

from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.inference.term_tests import chance, check_terms


def columns(runs):
    return [runs[name].to_numpy(float) for name in ("num_params", "num_tokens", "loss")]


@pytest.mark.parametrize("delta", [None, 1e-3])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_both_terms_of_a_sound_sweep_are_seen(named_law, sweep, noise, delta):
    N, D, loss = columns(sweep(noise=noise))
    assert check_terms(fit_parametric(N, D, loss, delta=delta), N, D, loss) == []


@pytest.mark.parametrize(("alone", "unseen"), [("N", "D"), ("D", "N")])
def test_a_term_that_is_not_there_is_not_seen(sweep, alone, unseen):
    N, D, _ = columns(sweep())
    rng = np.random.default_rng(0)
    loss = (1 + 66 / (N if alone == "N" else D) ** 0.35) * np.exp(0.003 * rng.normal(size=35))
    (check,) = check_terms(fit_parametric(N, D, loss), N, D, loss)
    assert (check.code, check.severity) == ("unseen-term", "refuse")
    assert f"falls with {unseen} (" in check.message


def test_p_values_are_level_without_a_term(sweep):
    """F is not quite F (alpha is free only where A is): it errs by less than a factor of two."""
    N, D, _ = columns(sweep())
    rng = np.random.default_rng(1)
    found = []
    for _ in range(60):
        loss = 3 * np.exp(0.01 * rng.normal(size=35))
        found.append(chance(fit_parametric(N, D, loss), np.ones(35), D, loss))
    assert np.mean(np.array(found) < 0.05) < 0.1
    assert np.mean(found) > 0.3
