"""The optimum of a row in words, as the result will have it."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from flops_fit.laws.fitting.isoflop import fit_isoflop
from flops_fit.records import Trial
from flops_fit.sweep.plan.row_optimum import optima_in_words

FIRST = Trial("a" * 16, 1e9, 8, 0, 100, 10**6, 1e9, 100, 8, 0.1, 0)
BUDGETS = (1e9, 4e9, 1.6e10)
TRIALS = [
    replace(FIRST, trial_id=f"{C:.0f}-{k}", compute_budget=C, size=8 * 2**k, num_params=100 * 2**k)
    for C in BUDGETS
    for k in range(6)
]


def losses(noise, curvature):
    """Rows with different noise: a row alone would be judged otherwise than among all."""
    generator = np.random.default_rng(3)
    scale = dict(zip(BUDGETS, noise, strict=True))
    return {
        trial.trial_id: 2
        + curvature * math.log(trial.num_params / 500) ** 2
        + scale[trial.compute_budget] * generator.normal()
        for trial in TRIALS
    }


@pytest.mark.parametrize("noise", [(1e-4, 0.02, 0.02), (0.02, 0.02, 1e-4), (0.02, 1e-4, 0.03)])
@pytest.mark.parametrize("curvature", [1e-3, 3e-3, 0.1])
def test_words_are_those_of_the_result_once_all_rows_have_ended(noise, curvature):
    found = losses(noise, curvature)
    rows = pd.DataFrame(
        [(t.compute_budget, t.num_params, found[t.trial_id]) for t in TRIALS],
        columns=["C", "N", "loss"],
    )
    optima = fit_isoflop(rows["C"], rows["N"], rows["loss"])
    said = optima_in_words(TRIALS, found, "width")
    for reason, line in zip(optima["refused"], said, strict=True):
        if reason:
            assert line.endswith(f": no optimum so far: {reason}")
        else:
            assert "the loss is least near N = " in line
    assert said == [
        line for C in BUDGETS for line in optima_in_words(TRIALS, found, "width", budget=C)
    ]


def test_rows_that_have_not_ended_are_left_out():
    found = losses((0, 0, 0), 0.1)
    some = {name: loss for name, loss in found.items() if name != TRIALS[-1].trial_id}
    assert len(optima_in_words(TRIALS, some, "width")) == 2
    assert optima_in_words(TRIALS, some, "width", budget=1.6e10) == []
    assert optima_in_words(TRIALS, {}, "width") == []


def test_few_sizes_are_said_to_be_few():
    some = {t.trial_id: 2.0 if t.size < 32 else math.nan for t in TRIALS[:6]}
    assert optima_in_words(TRIALS[:6], some, "width") == [
        "C=1e+09: only 2 sizes have a loss, too few for an optimum"
    ]
