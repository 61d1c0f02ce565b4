"""The whole default pipeline against laws it must find, with noise, outliers and shared errors."""

import numpy as np
import pytest

from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.headline import headline
from flops_fit.laws.runs.table import read_runs


def found(runs):
    return headline(read_runs(runs)[0], Options(num_draws=100))


def exponent(result):
    return result.fits[result.form].law.a


def exponents(laws):
    return laws[:, 4:5] / (laws[:, 3:4] + laws[:, 4:5])


@pytest.mark.slow
def test_recovery_and_coverage_of_the_exponent(sweep):
    """200 sweeps of Epoch's law, 5 x 7 over two decades, +-.5 decade, noise .003."""
    results = [found(sweep("chinchilla", noise=0.003, seed=s, half_width=0.5)) for s in range(200)]
    truth = 0.3658 / (0.3478 + 0.3658)
    error = np.array([exponent(result) for result in results]) - truth
    ends = np.array([np.ravel(result.interval(exponents)) for result in results])
    covered = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
    assert np.sqrt((error**2).mean()) < 0.011
    assert abs(np.median(error)) < 0.002
    assert np.quantile(np.abs(error), 0.99) < 0.0235 * 1.25
    assert 0.90 <= covered <= 0.985


@pytest.mark.slow
def test_one_outlier_raises_the_error_by_under_a_tenth(sweep):
    truth = 0.30 / 0.65
    errors = {True: [], False: []}
    for seed in range(70):
        for spoilt in errors:
            runs = sweep(noise=0.003, seed=seed, half_width=0.5)
            if spoilt:
                runs.loc[seed % 35, "loss"] *= 1 + 0.02 + 0.04 * (seed % 7) / 6
            errors[spoilt].append(exponent(found(runs)) - truth)
    rmse = {spoilt: np.sqrt(np.mean(np.square(e))) for spoilt, e in errors.items()}
    assert rmse[True] < 1.1 * rmse[False]


def test_noise_free_exponents(sweep, named_law):
    law, _, _ = named_law
    from flops_fit.laws.runs.simulate import simulate_isoflop

    _, first, last = named_law
    runs = simulate_isoflop(law, np.geomspace(first, last, 5), half_width=0.5)
    assert exponent(found(runs)) == pytest.approx(law.a, abs=1e-6)
