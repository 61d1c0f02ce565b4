from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from named_laws import bent
from planted import BUDGETS, LAW, runs

from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.report import html_page, summary, tables
from flops_fit.result import fit

META = {"data_unit": "to_kens", "size_param": "d_model"}


@pytest.fixture(scope="module")
def result():
    return fit(runs(), name="50 % & more_$x$ <b>|", meta=META)


def test_the_lines_hold_law_headline_and_back_test(result):
    text = "\n".join(summary.summary(result.findings))
    error = result.intervals.loc["alpha", "standard_error"]
    assert f"alpha {result.law.alpha:.4f} ± {error:.4f}" in text
    for C in (1e14, 1e15):
        low, high = result.predict(C).loss_interval
        assert f"loss {result.predict(C).loss:.3f} ({low:.3f} to {high:.3f})" in text
    row = result.backtest[result.backtest["form"] == "five"].iloc[0]
    (line,) = (line for line in text.splitlines() if line.startswith("Back-test: "))
    assert f" {100 * row['loss_rmse']:.2g} %" in line
    assert f" {100 * row['limit'] * row['in_sample_std']:.2g} %" in line


@pytest.mark.parametrize("target", [1e13, 1e15, 3e16])
def test_a_goal_is_told_and_its_target_is_predicted(result, target):
    message = "It spans 1.3x, of 1.25x asked for. The sweep ends: no more FLOPs"
    rounds = pd.DataFrame({"target": [target], "message": [message]})
    lines = summary.summary(replace(result.findings, rounds=rounds))
    assert f"Goal: {message}" in lines
    told = [float(line.split()[1]) for line in lines if "FLOPs: N " in line]
    assert told == sorted({1e14, 1e15, target})
    assert len(lines) < 15


def test_a_target_that_is_not_predicted_is_told(result):
    rounds = pd.DataFrame({"target": [1e19], "message": ["Missed"]})
    lines = summary.summary(replace(result.findings, rounds=rounds))
    assert "No prediction at 1e+19 FLOPs, so far beyond the runs." in lines
    assert sum("FLOPs: N " in line for line in lines) == 2


@pytest.mark.slow
def test_a_law_that_bends_is_written_with_its_gamma():
    found = fit(simulate_isoflop(bent(LAW), BUDGETS, noise=0.002, seed=3), num_draws=100)
    law, text = found.law, "\n".join(summary.summary(found.findings))
    terms = f"({law.A:.4g} / N^{law.alpha:.4g} + {law.B:.4g} / D^{law.beta:.4g})^{law.gamma:.4g}"
    assert f"L = {law.E:.4g} + {terms}" in text
    assert f"gamma {law.gamma:.3f} ± " in text
    assert "a law that bends: the runs contradict gamma = 1 (F " in text
    assert "<sup>gamma</sup>" in html_page.page(found.findings, html_page.Plots({}, {}))


def test_a_refusal_is_reported_within_fourteen_lines():
    rough = fit(simulate_isoflop(LAW, BUDGETS, noise=0.05, half_width=0.4, seed=2))
    lines = summary.summary(rough.findings)
    assert len(lines) < 15
    assert sum("FLOPs: N " in line for line in lines) == 1
    assert any(line.startswith("No prediction beyond 1e+14 FLOPs") for line in lines)
    without_law = summary.summary(fit(runs().iloc[:7]).findings)
    assert without_law[1].startswith("No parametric law")


def test_a_loss_that_no_law_predicts_is_not_a_question_mark():
    table = runs().iloc[:21].copy()
    table.loc[3, "loss"] = 1e9
    found = fit(table)
    reason = "no loss is predicted: fewer than three budgets have an optimum"
    assert repr(found).count(reason) == 2
    assert reason in summary.verdict(found.findings)
    prediction = found.predict(1e13)
    assert "fewer than three budgets have an optimum" in str(prediction)
    assert reason in prediction.checks[-1].message
    for text in (repr(found), str(prediction), summary.verdict(found.findings)):
        assert "?" not in text
        assert "nan" not in text


def test_where_n_is_under_one_the_result_still_reads():
    table = runs()
    table["num_params"] *= 1e-6
    table["num_tokens"] *= 1e-6
    found = fit(table, num_draws=100)
    assert "L = " in repr(found)
    assert "any model" in summary.verdict(found.findings)


def test_the_verdict_is_one_sentence(result):
    prediction = result.predict(1e14)
    verdict = summary.verdict(result.findings)
    for fact in (
        "1e+14 FLOPs",
        f" {prediction.num_params / 1e3:.0f}k (",
        f"d_model {prediction.size}",
        f"{prediction.loss:.3f} (",
    ):
        assert fact in verdict
    assert verdict.count(". ") == 0
    assert "No scaling law" in summary.verdict(fit(runs().iloc[:7]).findings)


def test_the_verdict_on_repeated_data_says_that_it_asks_for_new_data():
    table = runs()
    unique = table["num_tokens"] / np.tile([1.0, 3, 1, 2, 1, 4, 1], 5)
    law = RepetitionLaw(LAW)
    loss = law.loss(table["num_params"], table["num_tokens"], unique)
    found = fit(table.assign(unique_tokens=unique, loss=loss), num_draws=100)
    assert "tokens, all new" in summary.verdict(found.findings)
    assert "all new" not in summary.verdict(fit(runs(), num_draws=100).findings)


def test_cells_of_the_table(result):
    table = tables.as_cells(result.chinchilla_table([1e14, 1e15]), META)
    assert list(table.columns) == [
        "C, FLOPs", "N, parameters", "N, 95 %", "D, to_kens", "D, 95 %", "D / N",
        "loss", "loss, 95 %", "d_model", "C / largest",
    ]  # fmt: skip
    assert table["C / largest"].tolist() == ["1", "10"]
    assert table["loss"].tolist() == [f"{L:.3f}" for L in result.law.l_opt([1e14, 1e15])]


def test_latex_sets_names_as_they_are(result):
    latex = result.to_latex([1e13])
    name = "50 \\% \\& more\\_\\$x\\$ \\textless{}b\\textgreater{}\\textbar{}"
    assert f"What to train for each budget: {name}." in latex
    assert "D, to\\_kens" in latex
    assert "\\toprule" in latex
    assert latex.count("&") == 2 * 9 + 1


def test_without_intervals_or_sizes():
    table = runs().assign(size=None)
    table.loc[3, "loss"] = 1e9
    shown = tables.as_cells(fit(table).chinchilla_table([1e14]), {})
    assert shown["N, 95 %"].tolist() == [""]
    assert "size" not in shown
    assert isinstance(shown, pd.DataFrame)
    assert np.all(shown["C, FLOPs"] == "1e+14")
