import numpy as np
import pytest


def test_noise_free_runs_lie_on_the_law(sweep, small):
    runs = sweep()
    np.testing.assert_allclose(runs["loss"], small.loss(runs["num_params"], runs["num_tokens"]))
    np.testing.assert_allclose(6 * runs["num_params"] * runs["num_tokens"], runs["flops"])
    middle = runs["num_params"].to_numpy().reshape(5, 7)[:, 3]
    np.testing.assert_allclose(middle, small.n_opt(runs["compute_budget"].unique()))


def test_noise_has_the_given_size(sweep):
    errors = [np.log(sweep(noise=0.01, seed=s)["loss"] / sweep()["loss"]) for s in range(60)]
    assert np.std(errors) == pytest.approx(0.01, rel=0.05)


def test_shared_noise_is_shared_by_size(sweep):
    error = np.log(sweep(shared_noise=0.01)["loss"] / sweep()["loss"]).to_numpy().reshape(5, 7)
    np.testing.assert_allclose(error, np.broadcast_to(error[0], (5, 7)), atol=1e-12)
    assert error[0].std() > 0.002


def test_the_seed_decides_the_noise(sweep):
    assert sweep(noise=0.01, seed=1).equals(sweep(noise=0.01, seed=1))
    assert not sweep(noise=0.01, seed=1).equals(sweep(noise=0.01, seed=2))
