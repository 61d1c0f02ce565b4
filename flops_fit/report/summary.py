"""A result in fewer than fifteen lines: the law, what to train, the back-test, the checks."""

from __future__ import annotations

import numpy as np

from flops_fit.display import html
from flops_fit.display.number_text import (
    bent,
    count,
    exponent,
    flops,
    loss,
    percent,
    plus_minus,
    with_interval,
)
from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.check import Check
from flops_fit.laws.findings import Findings
from flops_fit.laws.predict.paths import UNCONSTRAINED
from flops_fit.laws.predict.prediction import Prediction, predict_budget
from flops_fit.laws.predict.tables import chinchilla_table
from flops_fit.report import tables
from flops_fit.report.outcomes import summary_line
from flops_fit.report.train_this import in_words, of_role, recipe_line

NAMES = ("E", "A", "B", "alpha", "beta", "gamma")
MOST_CHECKS = 4
MOST_LINES = 14
BEYOND = 10.0  # the summary predicts the largest budget, this multiple of it, and a goal's target
# What a prediction raises: no law, or one with N or D below 1 at this budget.
NO_PREDICTION = (FitError, ArgumentError)


def summary(findings: Findings) -> list[str]:
    """The lines of `repr(result)`."""
    lines = _head(findings)
    checks, more = _serious(findings, MOST_LINES - 1 - len(lines))
    lines += [f"  {check.severity}: {check.message}" for check in checks]
    return [*lines, f"  {more}"] if more else lines


def summary_html(findings: Findings) -> str:
    """The summary and the table of what to train, as HTML for notebooks."""
    try:
        wanted = chinchilla_table(findings)
        cells = tables.as_cells(wanted, findings.meta, findings.metrics.values())
        table = html.frame(cells)
    except FitError:
        table = ""
    checks, more = _serious(findings, MOST_CHECKS)
    remarks = html.remarks((check.severity, check.message, "") for check in checks)
    return html.block(_head(findings), table, remarks, html.block([more]) if more else "")


def _head(findings: Findings) -> list[str]:
    """The lines of a summary without the checks."""
    runs = findings.sweep_runs
    excluded = int((runs["excluded"] != "").sum())
    name = f" {findings.meta['name']!r}" if findings.meta.get("name") else ""
    return [
        f"Result{name}: {len(runs)} runs, {excluded} excluded{of_role(findings)}",
        *law_and_predictions(findings),
        *([f"Goal: {text}"] if (text := goal_reached(findings)) else []),
        *([line] if (line := summary_line(findings.forecasts)) else []),
    ]


def goal_reached(findings: Findings) -> str:
    """Whether a sweep's goal is reached, and why it ended; empty if it had none."""
    return "" if findings.target is None else str(findings.rounds["message"].iloc[-1])


def law_and_predictions(findings: Findings) -> list[str]:
    """The law, the models to train at some budgets, the recipe, and the back-test."""
    errors = backtest_errors(findings)
    return [
        *_law(findings),
        *_predictions(findings),
        *recipe_line(findings),
        *([f"Back-test: {errors}"] if errors else []),
    ]


def verdict(findings: Findings) -> str:
    """What to train for the largest budget, in one sentence."""
    C = findings.largest_budget
    try:
        prediction = predict_budget(findings, C, UNCONSTRAINED)
    except NO_PREDICTION as error:
        return f"No scaling law could be fitted to these runs: {error}"
    size_param = findings.meta.get("size_param", "size")
    size = "" if prediction.size is None else f" ({size_param} {prediction.size})"
    # With a law of repeated data, the prediction is for data without repetition.
    all_new = ", all new" if findings.repetition is not None else ""
    missing = no_loss(findings)
    ending = f"; {missing}." if missing else f", and expect a loss of {_loss(prediction)}."
    return (
        f"For {flops(C)} FLOPs, the largest budget of this sweep, train "
        f"{_params(prediction)} parameters{size} on "
        f"{_tokens(prediction)} {_unit(findings)}{all_new}{in_words(prediction)}{ending}"
    )


def no_loss(findings: Findings) -> str:
    """Why the power laws predict N and D but no loss; empty if a loss is predicted."""
    reason = findings.power_laws.l_opt.refused
    return f"no loss is predicted: {reason}" if findings.law is None and reason else ""


def law_line(findings: Findings) -> str:
    """The equation of the law, with its numbers."""
    return _law(findings)[0]


def _law(findings: Findings) -> list[str]:
    law = findings.law
    if law is None:
        return ["No parametric law: see the checks."]
    values = findings.intervals[["value", "standard_error"]].to_dict("index")
    # E, A and B are NaN where the runs determine only the exponents.
    has_constants = not np.isnan(values["E"]["value"])
    names = [name for name in NAMES if name in values]
    if has_constants:
        E, A, B = (f"{value:.4g}" for value in (law.E, law.A, law.B))
        remark = ""
    else:
        names = names[3:]
        E, A, B = "E", "A", "B"
        remark = " (the runs do not determine E, A and B)"
    terms = f"{A} / N^{law.alpha:.4g} + {B} / D^{law.beta:.4g}"
    errors = ", ".join(
        f"{name} {plus_minus(values[name]['value'], values[name]['standard_error'])}"
        for name in names
    )
    a = findings.intervals.loc[["a"]].to_dict("records")[0]
    return [
        f"L = {E} + {bent(terms, law.gamma)}{remark}",
        f"  {errors} (standard errors)",
        f"By the law N_opt ~ C^{exponent(law.a)} "
        f"(95 %: {exponent(a['low'])} to {exponent(a['high'])}); "
        f"{findings.choice}.",
    ]


def _predictions(findings: Findings) -> list[str]:
    """The model to train at the largest budget, at ten times it, and at the target of a goal."""
    lines, counts, told = [], [], []
    largest = findings.largest_budget
    for C in _budgets_told(findings):
        try:
            prediction = predict_budget(findings, C, UNCONSTRAINED)
        except NO_PREDICTION:
            if C <= largest:  # no law at all, which the line above says
                return []
            if C <= BEYOND * largest:
                lines.append(f"No prediction beyond {flops(largest)} FLOPs: see the checks.")
            else:
                lines.append(f"No prediction at {flops(C)} FLOPs, so far beyond the runs.")
            break
        lines.append(
            f"At {flops(C)} FLOPs: N {_params(prediction)}, "
            f"D {_tokens(prediction)} {_unit(findings)}, "
            + (no_loss(findings) or f"loss {_loss(prediction)}")
        )
        counts.append(approaches(prediction))
        told.append((C, prediction.num_params))
    if counts[0]:
        then = ""
        if len(counts) > 1:
            (first, smallest), (last, size) = told[0], told[-1]
            slope = float(np.log(size / smallest) / np.log(last / first))
            then = f"; at {flops(last)} FLOPs {counts[-1]}; "
            then += f"between them it grows as C^{exponent(slope)}"
        lines.append(f"N is the mean of {counts[0]}{then}")
    return lines


def _budgets_told(findings: Findings) -> list[float]:
    largest = findings.largest_budget
    budgets = [largest, BEYOND * largest]
    if findings.target is None or np.isclose(budgets, findings.target).any():
        return budgets
    return sorted([*budgets, findings.target])


def approaches(prediction: Prediction) -> str:
    """How much each approach counts in N; empty if the law decides alone."""
    if len(prediction.approaches) < 2:
        return ""
    return ", ".join(f"{name} {percent(share)}" for name, share in prediction.approaches.items())


def _params(prediction: Prediction) -> str:
    return with_interval(prediction.num_params, prediction.num_params_interval, count)


def _tokens(prediction: Prediction) -> str:
    return with_interval(prediction.num_tokens, prediction.num_tokens_interval, count)


def _loss(prediction: Prediction) -> str:
    return with_interval(prediction.loss, prediction.loss_interval, loss)


def backtest_errors(findings: Findings) -> str:
    """How well the law, fitted without the largest budgets, predicts their losses; may be empty."""
    headline, table = findings.fits.get("headline"), findings.backtest
    if headline is None:
        return ""
    same_form = table[table["form"] == headline.form]
    # Without noise the ratio of the error to chance is NaN: there is nothing to compare with.
    if same_form.empty or np.isnan(same_form["ratio"].iloc[0]):
        return ""
    row = same_form.iloc[0]
    return (
        f"fitted without the budgets from {flops(row['held_out_from'])} FLOPs up, the law predicts "
        f"their losses to {percent(row['loss_rmse'])} (noise explains up to "
        f"{percent(row['limit'] * row['in_sample_std'])})"
    )


def _serious(findings: Findings, room: int) -> tuple[list[Check], str]:
    """The first checks that refuse or warn, so many at most, and how many more there are."""
    serious = [check for check in findings.checks if check.severity == "refuse"]
    serious += [check for check in findings.checks if check.severity == "warn"]
    most = min(MOST_CHECKS, room)
    more = len(serious) - most
    return serious[:most], f"{more} more: see .checks, or the report" if more > 0 else ""


def _unit(findings: Findings) -> str:
    return findings.meta.get("data_unit", "tokens")
