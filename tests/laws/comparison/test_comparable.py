from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from flops_fit.errors import FitError
from flops_fit.laws.comparison.comparable import doubts, incomparable, require_not_below

META = {
    "loss_fn": "mine.loss",
    "data_unit": "tokens",
    "flops_convention": "measured",
    "data_fingerprint": "abc",
    "held_out": "blocks",
    "eval_examples": "2048",
}
NAMES = ("a", "b")
RUNS = pd.DataFrame({"compute_budget": [1e12, 1e14], "num_params": 1e5, "num_tokens": [1e6, 1e8]})


def sweeps(*metas, runs=(RUNS, RUNS)):
    """Findings with these metadata and runs."""
    return tuple(SimpleNamespace(meta=m, fitted_runs=r) for m, r in zip(metas, runs, strict=True))


def raised(factor, column="compute_budget"):
    return RUNS.assign(**{column: RUNS[column] * factor})


def test_sweeps_that_agree_can_be_compared():
    assert incomparable(NAMES, sweeps(META, META), per_byte=False) == []
    assert doubts(NAMES, sweeps(META, META), per_byte=False) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loss_fn": "other.loss"}, "the loss differs: mine.loss in 'a', other.loss in 'b'"),
        ({"data_unit": "examples"}, "what D counts differs"),
        ({"flops_convention": "6ND"}, "how FLOPs are counted differs"),
        ({"data_fingerprint": "xyz"}, "the held-out data of 'a' and 'b' differ"),
        ({"held_out": "random"}, "bytes_per_token="),
    ],
)
def test_what_differs_is_named(change, said):
    (fault,) = incomparable(NAMES, sweeps(META, {**META, **change}), per_byte=False)
    assert said in fault


def test_training_data_may_differ_where_the_held_out_data_are_given():
    one, other = ({**META, "data_fingerprint": text} for text in ("abc+eval", "xyz+eval"))
    assert incomparable(NAMES, sweeps(one, other), per_byte=False) == []


def test_other_tokens_are_compared_per_byte_and_that_is_said():
    other = {**META, "data_fingerprint": "xyz"}
    assert incomparable(NAMES, sweeps(META, other), per_byte=True) == []
    assert [check.code for check in doubts(NAMES, sweeps(META, other), per_byte=True)] == [
        "per-byte"
    ]


@pytest.mark.parametrize("metas", [({}, {}), (META, {})])
def test_tables_that_say_nothing_are_compared_and_that_is_said(metas):
    assert incomparable(NAMES, sweeps(*metas), per_byte=False) == []
    assert [check.code for check in doubts(NAMES, sweeps(*metas), per_byte=False)] == [
        "unknown-loss"
    ]


def test_means_over_other_numbers_of_examples_are_doubtful():
    other = {**META, "eval_examples": "512"}
    (check,) = doubts(NAMES, sweeps(META, other), per_byte=False)
    assert check.severity == "warn"
    assert "2048 and 512" in check.message


@pytest.mark.parametrize(
    ("factor", "faults", "checks"), [(1.0, 0, 0), (99.0, 0, 0), (500.0, 0, 1), (1e4, 1, 0)]
)
def test_budgets_that_the_sweeps_do_not_share(factor, faults, checks):
    both = sweeps(META, META, runs=(RUNS, raised(factor)))
    assert len(incomparable(NAMES, both, per_byte=False)) == faults
    found = doubts(NAMES, both, per_byte=False)
    assert [check.code for check in found] == ["no-common-budgets"] * checks


@pytest.mark.parametrize(
    ("meta", "factor", "codes"),
    [({}, 3.0, ["other-flops"]), ({}, 1.2, []), (META, 3.0, [])],
)
def test_flops_counted_otherwise_are_doubted(meta, factor, codes):
    both = sweeps(meta, meta, runs=(RUNS, raised(1 / factor, "num_tokens")))
    found = [check.code for check in doubts(NAMES, both, per_byte=False)]
    assert [code for code in found if code != "unknown-loss"] == codes


def test_budgets_far_below_the_runs_are_refused_unless_wanted():
    (one, _) = sweeps(META, META)
    require_not_below(one, np.array([1e9]), anyway=False)
    with pytest.raises(FitError, match="no comparison so far below the runs: 1e\\+08"):
        require_not_below(one, np.array([1e8, 1e12]), anyway=False)
    require_not_below(one, np.array([1e8]), anyway=True)
