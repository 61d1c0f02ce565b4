"""The optimum of a row in words, as the result will have it."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from flops_fit import fit
from flops_fit.display.number_text import count, flops, loss
from flops_fit.laws.fitting.isoflop import fit_isoflop
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.repetition_law import effective_tokens
from flops_fit.laws.runs.exclusions import REPEATED
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.records import RUN_COLUMNS, Run, Trial, to_frame
from flops_fit.sweep.plan.row_optimum import optima_in_words

FIRST = Trial("a" * 16, 1e9, 8, 0, 100, 10**6, 1e9, 100, 8, 0.1, 0)
COLUMNS = ("num_params", "num_tokens")
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
            assert line.endswith(f": no optimum: {reason}")
        else:
            assert "the loss is least near N = " in line
    assert said == [
        line for C in BUDGETS for line in optima_in_words(TRIALS, found, "width", budget=C)
    ]
    first = {t.trial_id: found[t.trial_id] for t in TRIALS if t.compute_budget == BUDGETS[0]}
    (line,) = optima_in_words(TRIALS, first, "width")
    assert "near N =" in line or " so far, by the noise of 1 of 3 budgets: " in line


def test_rows_that_have_not_ended_are_left_out():
    found = losses((0, 0, 0), 0.1)
    some = {name: loss for name, loss in found.items() if name != TRIALS[-1].trial_id}
    assert len(optima_in_words(TRIALS, some, "width")) == 2
    assert optima_in_words(TRIALS, some, "width", budget=1.6e10) == []
    assert optima_in_words(TRIALS, {}, "width") == []


def test_few_sizes_are_said_to_be_few():
    some = {t.trial_id: 2.0 if t.size < 32 else math.nan for t in TRIALS[:6]}
    assert optima_in_words(TRIALS[:6], some, "width") == [
        "C=1e+09: only 2 sizes with a loss, too few for an optimum"
    ]


LAW = ParametricLaw(1.7, 400.0, 400.0, 0.34, 0.28)


def along_rows(budgets, num_sizes):
    """Trials along the rows of a law; a step takes 100 tokens."""
    rows = simulate_isoflop(LAW, budgets, num_sizes=num_sizes)
    return [
        replace(
            FIRST,
            trial_id=f"{k:016x}",
            compute_budget=row.compute_budget,
            size=round(row.num_params),
            num_params=round(row.num_params),
            num_tokens=100 * round(row.num_tokens / 100),
            flops=row.compute_budget,
            steps=round(row.num_tokens / 100),
            batch_size=4,
        )
        for k, row in enumerate(rows.itertuples())
    ]


def result_of(trials, found, num_examples):
    """The result of a sweep's runs, with the columns that it records."""
    runs = [
        Run(
            t.trial_id,
            "",
            t.compute_budget,
            t.size,
            t.num_params,
            t.num_tokens,
            t.flops,
            found[t.trial_id],
            1.0,
            0,
            "complete",
            epochs=t.steps * t.batch_size / num_examples,
        )
        for t in trials
    ]
    return fit(to_frame(runs, RUN_COLUMNS), num_draws=100)


def same_words(said, result):
    """The lines say what the result's optima do, and how many runs of the row it leaves out."""
    for (C, row), (_, optimum), line in zip(
        result.runs.groupby("compute_budget"), result.optima.iterrows(), said, strict=True
    ):
        out = int((row["excluded"] != "").sum())
        assert (f"; {out} of {len(row)} runs left out (" in line) == bool(out)
        if optimum["refused"]:
            few = "too few for an optimum" in line and "a curve needs" in optimum["refused"]
            assert few or f": no optimum: {optimum['refused']}" in line
        else:
            assert f"near N = {count(optimum['num_params'])} (" in line
            assert f"nearest), {loss(optimum['loss'])}" in line
        assert line.startswith(f"C={flops(C)}")


@pytest.mark.parametrize(
    ("budgets", "num_sizes", "tokens_in_data", "num_out"),
    [
        # Too few runs for a law of repeated data: those over 16 epochs are left out.
        ([1e9], 8, 2_500, 2),
        ([1e9, 4e9], 4, 2_500, 3),
        ([1e9, 4e9, 1.6e10, 6.4e10], 9, 10_000, 0),  # a law of repeated data: all count
    ],
)
def test_runs_that_the_result_leaves_out_do_not_count_in_words(
    budgets, num_sizes, tokens_in_data, num_out
):
    trials = along_rows(budgets, num_sizes)
    N, D = (np.array([getattr(t, name) for t in trials], float) for name in COLUMNS)
    noise = np.exp(np.random.default_rng(1).normal(0, 2e-3, len(D)))
    values = LAW.loss(N, effective_tokens(D, tokens_in_data)) * noise
    found = dict(zip([t.trial_id for t in trials], values.tolist(), strict=True))
    num_examples = tokens_in_data // 25
    result = result_of(trials, found, num_examples)
    assert (D > 16 * tokens_in_data).any()
    assert (result.runs["excluded"] == REPEATED).sum() == num_out
    said = optima_in_words(trials, found, "width", num_examples=num_examples)
    same_words(said, result)


def test_outliers_that_the_result_leaves_out_do_not_count_in_words():
    trials = along_rows([1e9, 4e9, 1.6e10, 6.4e10], 7)
    noise = np.exp(np.random.default_rng(2).normal(0, 2e-3, len(trials)))
    noise[9] = 1.2
    found = {
        t.trial_id: float(LAW.loss(t.num_params, t.num_tokens)) * error
        for t, error in zip(trials, noise.tolist(), strict=True)
    }
    result = result_of(trials, found, 10**9)
    assert list(np.flatnonzero(result.runs["excluded"] != "")) == [9]
    said = optima_in_words(trials, found, "width", num_examples=10**9)
    assert "1 of 7 runs left out (outlier: loss far above the law)" in said[1]
    same_words(said, result)
