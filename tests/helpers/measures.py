"""Runs with metrics and times of planted laws."""

import numpy as np
from planted import LAW, runs

OVERHEAD, PER_FLOP = 2e-5, 1e-12  # seconds of a token, and of one of its FLOPs


def accuracy(loss):
    """A task at a chance level of 0.25, with a ceiling of 0.9."""
    return 0.25 + 0.65 / (1 + np.exp((loss - 2.75) / 0.3))


def error(loss):
    """An error rate that is a power of the reducible loss."""
    return 0.15 * (loss - LAW.E) ** 1.3


def seconds_per_token(N):
    return OVERHEAD + 6 * N * PER_FLOP


def measured_runs(noise=0.004, seed=0):
    """Runs with an accuracy, an error rate, a perplexity, a metric of pure noise, and times."""
    table, rng = runs(0.002, seed), np.random.default_rng(seed + 1)
    z = rng.standard_normal((5, len(table)))
    return table.assign(
        accuracy=accuracy(table["loss"]) + noise * z[0],
        error=error(table["loss"]) + noise * z[1],
        perplexity_c4=np.exp(table["loss"] + 0.1 + noise * z[2]),
        coin=0.5 + 0.02 * z[3],
        wall_time_s=table["num_tokens"]
        * seconds_per_token(table["num_params"])
        * np.exp(10 * noise * z[4]),
    )
