"""A result in a few lines: the law, what to train, the back-test, the doubts."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from flops_fit.errors import ArgumentError, FitError
from flops_fit.report.number_text import between, count, flops, loss, plus_minus

MOST_DOUBTS = 5
BEYOND = 10.0
NOT_TOLD = (FitError, ArgumentError)  # the latter where N or D would be under one


def summary(result: Any) -> list[str]:
    """The lines that `repr` shows: fewer than fifteen."""
    runs = result.runs
    excluded = int((runs["excluded"] != "").sum())
    name = f" {result.meta['name']!r}" if result.meta.get("name") else ""
    return [
        f"Result{name}: {len(runs)} runs, {excluded} excluded",
        *findings(result),
        *_doubts(result),
    ]


def findings(result: Any) -> list[str]:
    """The law, the model to train at the largest budget and at ten times it, the back-test."""
    return [*_law(result), *_headlines(result), *_backtest(result)]


def summary_html(result: Any) -> str:
    """The same lines and the table, for notebooks."""
    from flops_fit.report import tables

    head = "<br>".join(escape(line) for line in summary(result))
    try:
        table = tables.shown(result.chinchilla_table(), result.meta).to_html(index=False)
    except FitError:
        table = ""
    return f"<div><p>{head}</p>{table}</div>"


def verdict(result: Any) -> str:
    """What to train for the largest budget, in one sentence."""
    C = result.largest_budget
    try:
        told = result.predict(C)
    except NOT_TOLD as error:
        return f"These runs carry no scaling law: {error}"
    size = "" if told.size is None else f" ({result.meta.get('size_param', 'size')} {told.size})"
    new = ", all new" if result.findings.repetition is not None else ""
    why = no_loss(result)
    return (
        f"For {flops(C)} FLOPs, the largest budget of this sweep, train "
        f"{_with(told.num_params, told.num_params_interval, count)} parameters{size} on "
        f"{_with(told.num_tokens, told.num_tokens_interval, count)} {_unit(result)}{new}"
        + (f"; {why}." if why else f", and expect a loss of {_loss(told)}.")
    )


def _law(result: Any) -> list[str]:
    law = result.law
    if law is None:
        return ["No parametric law: see what was refused."]
    values = result.intervals[["value", "standard_error"]].to_dict("index")
    told = not np.isnan(values["E"]["value"])
    E, A, B = (f"{v:.4g}" for v in (law.E, law.A, law.B)) if told else ("E", "A", "B")
    names = ["E", "A", "B"] * told + ["alpha", "beta"]
    said = [f"{n} {plus_minus(*values[n].values())}" for n in names]
    a = result.intervals.loc["a"]
    return [
        f"L = {E} + {A} / N^{law.alpha:.4g} + {B} / D^{law.beta:.4g}"
        + (" (E, A and B are not told apart)" if not told else ""),
        f"  {', '.join(said)} (standard errors)",
        f"N_opt ~ C^{law.a:.3f} (95 %: {a['low']:.3f} to {a['high']:.3f}); "
        f"{result.findings.choice}.",
    ]


def _headlines(result: Any) -> list[str]:
    lines = []
    largest = result.largest_budget
    for C in (largest, BEYOND * largest):
        try:
            told = result.predict(C)
        except NOT_TOLD:
            if C == largest:
                return []
            lines.append(f"Nothing is predicted beyond {largest:.3g} FLOPs (refused).")
            break
        lines.append(
            f"At {flops(C)} FLOPs: "
            f"N {_with(told.num_params, told.num_params_interval, count)}, "
            f"D {_with(told.num_tokens, told.num_tokens_interval, count)} {_unit(result)}, "
            + (no_loss(result) or f"loss {_loss(told)}")
        )
    return lines


def no_loss(result: Any) -> str:
    """Why N and D are told but no loss; empty where it is told."""
    refused = result.power_laws.l_opt.refused
    return f"no loss told: {refused}" if result.law is None and refused else ""


def _loss(told: Any) -> str:
    return _with(told.loss, told.loss_interval, loss)


def _with(value: float, interval: tuple[float, float], form: Any) -> str:
    said = between(*interval, form)
    return f"{form(value)} ({said})" if said else str(form(value))


def _backtest(result: Any) -> list[str]:
    fit, table = result.fits.get("headline"), result.backtest
    own = table[table["form"] == fit.form] if fit is not None else table[:0]
    if own.empty or np.isnan(own["ratio"].iloc[0]):  # no noise to compare with
        return []
    row = own.iloc[0]
    allowed = 100 * row["limit"] * row["in_sample_std"]
    start, missed = flops(row["held_out_from"]), 100 * row["loss_rmse"]
    return [
        f"Back-test: losses from {start} FLOPs up, held out, are missed by {missed:.2g} % (chance "
        f"allows {allowed:.2g} %)"
    ]


def _doubts(result: Any) -> list[str]:
    grave = [check for check in result.checks if check.severity != "note"]
    lines = [f"  {check.severity}: {check.message}" for check in grave[:MOST_DOUBTS]]
    if len(grave) > MOST_DOUBTS:
        lines.append(f"  and {len(grave) - MOST_DOUBTS} more: see .checks, or the report")
    return lines


def _unit(result: Any) -> str:
    return str(result.meta.get("data_unit", "tokens"))
