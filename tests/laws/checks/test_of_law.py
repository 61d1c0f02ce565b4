"""The law itself: whether it holds along the rows, and whether the approaches agree."""

import numpy as np
import pandas as pd
import pytest
from checked import severities
from planted import LAW as PLANTED
from recipes import with_pilot

from flops_fit.display.number_text import count, loss
from flops_fit.laws.check import Check
from flops_fit.laws.checks.of_law import (
    CONSEQUENCES,
    check_approaches,
    check_lack_of_fit,
    without_consequences,
)
from flops_fit.laws.inference.lack_of_fit import LackOfFit, RowMisfit
from flops_fit.result import fit

EFFECT = {"num_params": 2e9, "law_num_params": 1e9, "loss": 2.1, "law_loss": 2.15, "wider": 1.0}


def lack(*rows):
    return LackOfFit(12.3, 1e-6, 0.003, 0.011, rows)


def sagging(runs, depth=0.01):
    """Runs whose largest row is more curved than the law: lower in the middle, higher outside."""
    top = runs["compute_budget"] == runs["compute_budget"].max()
    x = np.log(runs["num_params"])
    z = (x - x[top].mean()) / np.ptp(x[top])
    return runs.assign(loss=runs["loss"] * np.exp(np.where(top, depth * (8 * z**2 - 1), 0.0)))


def test_a_law_that_holds_has_no_such_check(sound):
    assert not {"lack-of-fit", "approaches-disagree"} & set(severities(sound))


@pytest.mark.parametrize("depth", [0.008, 0.01, 0.012])
def test_a_row_that_the_law_misses_is_named(sound, depth):
    found = fit(sagging(sound, depth), num_draws=100)
    (check,) = (check for check in found.checks if check.code == "lack-of-fit")
    assert check.severity == "warn"
    assert check.message.split("It is worst at C = ")[1].startswith("1e+14: ")
    assert "too flat" in check.message
    C = found.largest_budget
    prediction, law = found.predict(C), found.law
    assert (
        f"N {count(prediction.num_params)} (the law alone {count(law.n_opt(C))})" in check.message
    )
    assert f"loss {loss(prediction.loss)} ({loss(law.l_opt(C))})" in check.message


def test_no_other_check_repeats_that_the_law_is_wrong(sound):
    seeds = pd.concat([sagging(sound), sagging(sound).assign(loss=lambda t: t["loss"] * 1.0005)])
    checks = severities(seeds.reset_index(drop=True), outliers="keep")
    assert "lack-of-fit" in checks
    assert not CONSEQUENCES & set(checks)


def test_consequences_are_left_out_and_nothing_else():
    checks = [Check(code, "warn", "") for code in ("backtest", "few-runs", "objectives-disagree")]
    assert [check.code for check in without_consequences(checks)] == ["few-runs"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (RowMisfit(1e20, 0.8, 0.018, 0.0, 0.5), "at C = 1e+20: 1.8 % too high."),
        (RowMisfit(1e20, 0.8, -0.018, 0.0, 9.0), "at C = 1e+20: 1.8 % too low, too flat."),
        (RowMisfit(1e20, 0.8, 0.001, 0.7, -9.0), "minimum at 2 times the N, too curved."),
        (RowMisfit(1e20, 0.8, 0.001, 0.0, 1.0), "at C = 1e+20: off at its ends."),
    ],
)
def test_level_and_shape_of_a_row_in_words(row, words):
    (check,) = check_lack_of_fit(lack(row, RowMisfit(1e18, 0.2, 0.01, 0.0, 0.0)), EFFECT)
    assert words in check.message
    assert "1e+18" not in check.message


def test_a_wider_interval_is_told():
    rows = [RowMisfit(1e20, 0.4, 0.018, 0.0, 0.5), RowMisfit(1e19, 0.4, 0.01, 0.0, 0.5)]
    (check,) = check_lack_of_fit(lack(*rows), {**EFFECT, "wider": 1.72})
    assert "N 2.00B (the law alone 1.00B), loss 2.100 (2.150)" in check.message
    assert check.message.endswith("its interval 1.7 times as wide as the law's.")
    assert check_lack_of_fit(None, EFFECT) == []


def levels(*rows):
    columns = ["compute_budget", "approach", "value", "low", "high", "weight"]
    return pd.DataFrame(rows, columns=columns)


LAW = (1e20, "parametric law", 1e9, 0.8e9, 1.2e9, 0.4)


@pytest.mark.parametrize("other", [(1.1e9, 0.9e9, 1.4e9), (2e9, 1.2e9, 3e9), (5e8, 4e8, 9e8)])
def test_intervals_that_overlap_agree(other):
    assert check_approaches(levels(LAW, (1e20, "IsoFLOP rows", *other, 0.6))) == []


@pytest.mark.parametrize("other", [(2e9, 1.3e9, 3e9), (5e8, 4e8, 7e8)])
def test_intervals_apart_are_told_with_sizes_and_weights(other):
    near = (1e20, "envelope", 1e9, 0.7e9, 1.3e9, 0.1)
    (check,) = check_approaches(levels(LAW, (1e20, "IsoFLOP rows", *other, 0.5), near))
    assert check.severity == "warn"
    assert "N_opt at 1e+20 FLOPs: parametric law 1.00B (800M to 1.20B, counts 40 %)" in (
        check.message
    )
    assert f"IsoFLOP rows {count(other[0])} " in check.message
    assert "counts 50 %" in check.message
    assert "envelope" in check.message


def test_other_budgets_do_not_hide_a_disagreement():
    fine = [(1e18, *LAW[1:]), (1e18, "IsoFLOP rows", 1e9, 0.8e9, 1.2e9, 0.6)]
    apart = [LAW, (1e20, "IsoFLOP rows", 5e9, 4e9, 6e9, 0.6)]
    (check,) = check_approaches(levels(*fine, *apart))
    assert "at 1e+20 FLOPs" in check.message


def test_an_envelope_of_other_sizes_disagrees(sound, small):
    """Training curves on which small models lose too little, so the envelope prefers them."""
    runs = sound.assign(trial_id=[f"t{i}" for i in range(len(sound))])
    points = [
        pd.DataFrame(
            {
                "trial_id": run.trial_id,
                "num_tokens": (D := run.num_tokens * np.linspace(0.3, 1, 6)),
                "ended": True,
                "loss": small.loss(run.num_params, D) * (run.num_params / 3e5) ** 0.05,
            }
        )
        for run in runs.itertuples()
    ]
    curves = pd.concat(points)
    (check,) = (
        check
        for check in fit(runs, curves=curves, num_draws=100).checks
        if check.code == "approaches-disagree"
    )
    assert "envelope" in check.message
    assert "counts" in check.message


def test_a_recipe_that_suits_all_sizes_alike_has_no_such_check():
    table = with_pilot(off=1.3)
    assert "uneven-recipe" not in severities(table)
    assert "uneven-recipe" not in severities(table[table["role"] == "sweep"])


@pytest.mark.parametrize("tilt", [-0.3, 0.3])
def test_a_recipe_that_suits_some_sizes_better_is_doubted(tilt):
    found = fit(with_pilot(tilt=tilt), num_draws=100)
    (check,) = (check for check in found.checks if check.code == "uneven-recipe")
    C = found.largest_budget
    times = float(found.fits["best recipe"].law.n_opt(C) / found.law.n_opt(C))
    assert f"would be {times:.2g} times as large" in check.message
    # The planted optimum is where the best recipe has it, and in the interval.
    best = float(PLANTED.n_opt(C))
    assert found.fits["best recipe"].law.n_opt(C) == pytest.approx(best, rel=0.1)
    low, high = found.predict(C).num_params_interval
    assert low < best < high
