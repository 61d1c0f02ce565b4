import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted import LAW, runs

from flops_fit.errors import ArgumentError, FitError
from flops_fit.fit_table import fit
from flops_fit.laws.check import Check
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.predict import losses
from flops_fit.laws.predict.losses import LOSS_COLUMNS, predict_losses


@pytest.fixture(scope="module")
def findings():
    return fit(runs(), num_draws=100).findings


def largest(findings):
    """The N and D of the run with the most compute, and its loss."""
    return findings.fitted_runs.sort_values("compute_budget").iloc[-1]


def test_the_loss_is_that_of_the_law_at_each_model(findings):
    N, D = np.array([1e4, 1e5, 1e6]), np.array([1e7, 1e8, 1e8])
    table = predict_losses(findings, N, D)
    assert tuple(table.columns) == LOSS_COLUMNS
    np.testing.assert_array_equal(table["num_params"], N)
    np.testing.assert_array_equal(table["num_tokens"], D)
    np.testing.assert_allclose(table["loss"], findings.law.loss(N, D), rtol=0.01)


def test_intervals_contain_the_value_and_that_of_one_run_is_wider(findings):
    N = np.geomspace(1e3, 1e8, 12)
    table = predict_losses(findings, N, 1e14 / 6 / N)
    assert (table["loss_low"] < table["loss"]).all()
    assert (table["loss"] < table["loss_high"]).all()
    assert (table["run_low"] < table["loss_low"]).all()
    assert (table["run_high"] > table["loss_high"]).all()
    # Noise of .3 % about the law: two standard deviations on either side at least.
    at = predict_losses(findings, largest(findings)["num_params"], largest(findings)["num_tokens"])
    assert (at["run_high"] - at["run_low"])[0] / at["loss"][0] > 4 * 0.002


@pytest.mark.slow
def test_the_intervals_cover_the_true_law_and_new_runs():
    new = runs(seed=1_000)
    inside, runs_inside, total = 0, 0, 0
    for seed in range(4):
        table = predict_losses(
            fit(runs(seed=seed), num_draws=100).findings, new["num_params"], new["num_tokens"]
        )
        truth = LAW.loss(new["num_params"], new["num_tokens"])
        inside += int(table["loss_low"].le(truth).mul(table["loss_high"].ge(truth)).sum())
        loss = new["loss"].to_numpy()
        runs_inside += int(table["run_low"].le(loss).mul(table["run_high"].ge(loss)).sum())
        total += len(new)
    assert inside / total > 0.85
    assert runs_inside / total > 0.9


@pytest.mark.parametrize(
    ("N", "D", "rows"),
    [(1e5, 1e8, 1), ([1e5, 1e6], 1e8, 2), (np.ones((2, 1)) * 1e5, np.ones(3) * 1e8, 6)],
)
def test_arguments_broadcast(findings, N, D, rows):
    assert len(predict_losses(findings, N, D)) == rows


def test_series_and_whole_numbers_are_numbers(findings):
    table = predict_losses(findings, pd.Series([10**5, 10**6]), 10**8)
    np.testing.assert_array_equal(table["num_tokens"], [1e8, 1e8])


@pytest.mark.parametrize(
    "bad", [0, -1.0, np.nan, np.inf, True, None, "7e9", [], [1e5, "x"], [[1], 2]]
)
def test_bad_arguments_are_listed_together(findings, bad):
    with pytest.raises(ArgumentError) as caught:
        predict_losses(findings, bad, bad, 0)
    names = [problem.split(":")[0] for problem in caught.value.problems]
    assert names == ["num_params", "num_tokens", "unique_tokens"]


def test_shapes_that_do_not_broadcast_are_named(findings):
    with pytest.raises(ArgumentError, match=r"num_params \(2,\), num_tokens \(3,\)"):
        predict_losses(findings, [1e5, 1e6], [1e7, 1e8, 1e9])


def test_no_law_says_why(findings):
    check = Check("too-few-runs", "refuse", "3 finished runs.")
    lawless = replace(findings, law=None, checks=[check])
    with pytest.raises(FitError, match="no law could be fitted to these runs: 3 finished runs"):
        predict_losses(lawless, 1e5, 1e8)


def test_a_check_that_forbids_extrapolation_is_obeyed(findings):
    withheld = replace(findings, checks=[Check("wide-exponent", "refuse", "too wide.", "Stop.")])
    run = largest(findings)
    assert len(predict_losses(withheld, run["num_params"], run["num_tokens"])) == 1
    with pytest.raises(FitError, match=r"beyond the largest budget.*too wide\. Stop\."):
        predict_losses(withheld, [run["num_params"]] * 2, [1e8, 10 * run["num_tokens"]])


@pytest.mark.parametrize(
    ("D", "found"),
    [
        ([1e8], []),
        ([1e11], ["times the largest one", "tokens per parameter"]),
        ([1e2, 1e8], ["num_tokens is 0.000341 times", "0.001 tokens per parameter"]),
    ],
)
def test_doubts_are_told_beside_the_table(findings, D, found):
    checks = predict_losses(findings, 1e5, D).attrs["checks"]
    assert len(checks) == len(found)
    assert all(words in check for words, check in zip(found, checks, strict=True))


def test_repeated_data_is_worth_less(findings):
    table = predict_losses(findings, 1e5, 1e9, [1e7, 1e8, 1e9, 1e10])
    expected = RepetitionLaw(findings.law).loss(1e5, 1e9, [1e7, 1e8, 1e9, 1e10])
    np.testing.assert_allclose(table["loss"], expected, rtol=0.01)
    assert table["loss"].is_monotonic_decreasing
    assert table["loss"][2] == table["loss"][3]
    assert any("Muennighoff" in check for check in table.attrs["checks"])


def test_many_models_give_what_each_gives_alone(findings, monkeypatch):
    N = np.geomspace(1e4, 1e6, 7)
    whole = predict_losses(findings, N, 1e8)
    monkeypatch.setattr(losses, "BLOCK", 3)
    pd.testing.assert_frame_equal(whole, predict_losses(findings, N, 1e8), rtol=1e-12)


def test_a_table_with_its_checks_is_written_as_any_other(findings, tmp_path):
    table = predict_losses(findings, 1e5, 1e11)
    table.to_json(tmp_path / "losses.json")
    table.to_csv(tmp_path / "losses.csv")
    assert pd.concat([table, table]).shape == (2, 7)


@pytest.mark.parametrize(
    ("N", "D", "found"),
    [
        (1e9, 1.0, "num_params is .* times the largest of the runs"),
        (10, 1e13, "num_tokens is .* times the largest of the runs"),
        (1e-3, 1e9, "num_params is .* times the smallest of the runs"),
    ],
)
def test_a_model_far_beyond_the_runs_in_one_direction_is_doubted(findings, N, D, found):
    checks = predict_losses(findings, N, D).attrs["checks"]
    assert any(re.search(found, check) for check in checks)
    assert not re.search(r"\d{8}", " ".join(checks))


@pytest.mark.parametrize(("N", "D"), [(10**400, 1e9), (1e200, 1e200), (1e9, [1e9, 1e305])])
def test_numbers_that_overflow_are_refused(findings, N, D):
    with pytest.raises(ArgumentError, match="num_params"):
        predict_losses(findings, N, D)


def test_series_are_not_paired_by_place_if_their_labels_differ(findings):
    N = pd.Series([1e4, 1e5], index=[0, 1])
    for index in ([1, 0], [1, 2], ["a", "b"]):
        with pytest.raises(ArgumentError, match="num_tokens: expected the index of num_params"):
            predict_losses(findings, N, pd.Series([1e8, 1e9], index=index))
    assert len(predict_losses(findings, N, pd.Series([1e8, 1e9]))) == 2


@pytest.mark.parametrize("mask", [[True, False], [False, False], True])
def test_masked_arrays_are_refused(findings, mask):
    with pytest.raises(ArgumentError, match="num_params: expected a positive number"):
        predict_losses(findings, np.ma.masked_array([1e4, 1e5], mask), 1e9)
