"""Damaged tables: no value lies outside its interval, and no interval is absurd."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from named_laws import LAWS

from flops_fit.display import number_text
from flops_fit.errors import FlopsFitError
from flops_fit.laws.inference.intervals import Spread, hull
from flops_fit.laws.predict.known import MOST_FACTOR, check_known, withhold_unknown
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.result import fit

COLUMNS = ["num_params", "num_tokens", "loss"]


def damaged(kind, seed, factor):
    """A sweep with a fault: its budgets are not recorded, so nothing tells."""
    law, first, last = LAWS["small"]
    rows, sizes = [(5, 7), (3, 5), (4, 5)][seed % 3]
    C = np.geomspace(first, last, rows)
    runs = simulate_isoflop(law, C, num_sizes=sizes, half_width=0.75, noise=0.003, seed=seed)
    i = seed * 7 % len(runs)
    if kind == "tokens":
        runs.loc[i, "num_tokens"] *= factor
    elif kind == "params":
        runs.loc[i, "num_params"] *= factor
    elif kind == "budget":
        runs.loc[i, ["compute_budget", "num_tokens"]] *= factor
    elif kind == "swapped":
        runs.loc[i, ["num_params", "num_tokens"]] = runs.loc[i, ["num_tokens", "num_params"]].array
    elif kind == "repeated":
        copies = runs.iloc[[i] * 5].assign(loss=lambda r: r.loss * (1 + 1e-3 * np.arange(5)))
        runs = pd.concat([runs, copies], ignore_index=True)
    elif kind == "constant":
        runs.loc[runs["compute_budget"] == C[0], "loss"] = runs["loss"].mean()
    return runs


def assert_inside(result, budgets):
    table = result.intervals.dropna(subset=["value", "low", "high"])
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    for C in budgets:
        try:
            prediction = result.predict(C)
        except FlopsFitError:
            continue
        if result.law is None:
            continue
        for name in ("num_params", "num_tokens", "loss"):
            low, high = getattr(prediction, f"{name}_interval")
            value = getattr(prediction, name)
            assert low <= value <= high
            assert (low, high) == (0, math.inf) or high <= MOST_FACTOR * value


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tokens", "params", "budget", "swapped", "repeated", "constant"])
@settings(max_examples=2, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    decades=st.floats(1, 3),
    down=st.booleans(),
    options=st.sampled_from([{}, {"outliers": "keep"}, {"delta": 1e-3}]),
)
def test_no_value_lies_outside_its_interval(kind, seed, decades, down, options):
    runs = damaged(kind, seed, 10 ** (-decades if down else decades))
    columns = [*COLUMNS, "compute_budget"] if kind == "budget" else COLUMNS
    try:
        result = fit(runs[columns], num_draws=100, **options)
    except FlopsFitError:
        return
    C = runs["compute_budget"].to_numpy()
    assert_inside(result, [C.min(), result.findings.largest_budget, 30 * C.max()])


@pytest.mark.parametrize("method", ["wild", "pairs", "cluster"])
def test_an_interval_holds_its_value_though_all_draws_lie_beside_it(method):
    centre = np.array([1.0, 4.0, 5.0, 0.3, 0.3, 1.0])
    draws = centre + 0.1 + 0.01 * np.random.default_rng(0).random((200, 6))
    spread = Spread("five", centre, np.zeros((6, 6)), 10, 0.01, {method: draws}, num_clusters=5)
    low, high = hull((spread,), lambda laws: laws)
    assert (low <= centre).all()
    assert (centre <= high).all()


def vague_frame(findings, **changes):
    values = {"compute_budget": 1e15, "num_params": 4e3, "num_params_low": 3e3}
    values |= {"num_params_high": 5e3, "num_tokens": 1e6, "num_tokens_low": 9e5}
    values |= {"num_tokens_high": 2e6, "loss": 2.0, "loss_low": 1.9, "loss_high": 2.1}
    values |= {"new_run_low": 1.8, "new_run_high": 2.2, **changes}
    return withhold_unknown(findings, pd.DataFrame([values])).iloc[0]


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [
        ({}, ""),
        ({"num_params_low": 4e-46}, "N"),
        ({"num_params_low": 0.5}, "N"),
        ({"num_tokens_high": 4e45}, "D"),
        ({"num_tokens_high": math.nan}, "D"),
        ({"loss_low": -0.1}, "loss"),
        ({"loss_high": 400.0}, "loss"),
    ],
)
def test_intervals_that_say_nothing_are_withheld(sound, changes, unknown):
    row = vague_frame(fit(sound).findings, **changes)
    checks = check_known(row)
    assert [check.code for check in checks] == ["not-known"] * bool(unknown)
    if unknown:
        assert checks[0].message.startswith(f"{unknown} at 1e+15 FLOPs is not known")
        column = {"N": "num_params", "D": "num_tokens", "loss": "loss"}[unknown]
        assert (row[f"{column}_low"], row[f"{column}_high"]) == (0, math.inf)
        severity = "refuse" if unknown == "N" else "warn"
        assert check_known(row, within=True)[0].severity == severity


def test_an_unknown_interval_is_text():
    assert number_text.with_interval(4e3, (0, math.inf), number_text.count) == "4.00k (not known)"
    assert number_text.between(math.nan, math.nan, number_text.count) == ""


@pytest.fixture(scope="module")
def hopeless():
    """A fit of few runs, one of which records a thousandth of its tokens."""
    law, first, last = LAWS["small"]
    runs = simulate_isoflop(
        law, np.geomspace(first, last, 3), num_sizes=5, half_width=0.75, noise=0.003
    )
    # No two runs have one budget, so that no row shows the best size either.
    runs["num_tokens"] *= np.tile([1.0, 1.6, 2.5, 4.0, 6.3], 3)
    runs["loss"] = law.loss(runs["num_params"], runs["num_tokens"])
    runs.loc[0, "num_tokens"] /= 1000
    return fit(runs[COLUMNS], num_draws=200, outliers="keep")


@pytest.mark.parametrize(
    ("show", "text"),
    [
        (lambda result: str(result.predict(1e14)), "(95 %: not known)"),
        (repr, "(not known)"),
        (lambda result: result.to_latex([1e14]), "& not known &"),
        (lambda result: result._repr_html_(), ">not known</td>"),
    ],
    ids=["prediction", "result", "latex", "page"],
)
def test_every_text_says_what_is_not_known(hopeless, show, text):
    shown = show(hopeless)
    assert text in shown
    assert not re.search(r"\de-", shown.split(text)[0].splitlines()[-1])


def test_what_is_not_known_at_the_largest_budget_is_a_check_of_the_result(hopeless):
    (check,) = [check for check in hopeless.checks if check.code == "not-known"]
    assert "the largest budget of the sweep, are not known" in check.message
    table = hopeless.predict_loss(1e5, 1e8)
    assert table["loss_low"].item() <= table["loss"].item() <= table["loss_high"].item()
