"""A plan, its estimate and its precision in lines, and the same for notebooks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import pandas as pd

from flops_fit.laws.fitting.isoflop import LEAST_RUNS
from flops_fit.laws.runs.exclusions import MOST_EPOCHS
from flops_fit.report.number_text import between, count, duration, flops, size_of, times

MOST_ROWS = 40  # trials that are shown a line each; more are summed up, a line a budget
MOST_SKIPPED = 5
HEAD = ("C", "N", "D", "D/N", "steps", "batch", "lr", "epochs", "FLOPs")


def of_plan(plan: Any) -> list[str]:
    """The lines that `repr` shows."""
    return [_headline(plan), *_grid(plan), *_said(plan)]


def as_text(plan: Any) -> str:
    """A plan in lines, as one text."""
    return "\n".join(of_plan(plan))


def plan_html(plan: Any) -> str:
    """The same, the grid as a table."""
    table = pd.DataFrame([_row(plan, trial) for trial in plan.trials], columns=_columns(plan))
    return _html([_headline(plan), *_said(plan)], table)


def of_estimate(estimate: Any) -> list[str]:
    """The lines that `repr` shows."""
    table, many = estimate.table, estimate.devices > 1
    left = table[table["seconds"].notna()]
    lines = [
        f"Estimate: {duration(estimate.seconds)}"
        + _interval(estimate.seconds_interval, duration)
        + f" for {len(left)} of {len(table)} trials on {estimate.devices} device{'s' * many}"
        f" ({estimate.device})"
    ]
    if len(left):
        longest = left.loc[left["seconds"].idxmax()]
        lines.append(
            f"  {duration(estimate.device_seconds)} of training in all; the longest trial "
            f"{duration(longest['seconds'])} (size {longest['size']} at "
            f"{flops(longest['compute_budget'])} FLOPs)"
        )
    if math.isfinite(estimate.memory_bytes):
        how = "measured" if estimate.memory_kind == "measured" else "estimated from its tensors"
        lines.append(f"  memory: {size_of(estimate.memory_bytes)} at most, {how}")
    if math.isfinite(estimate.cost):
        lines.append(
            f"  money: {estimate.cost:.3g}"
            + _interval(estimate.cost_interval, "{:.3g}".format)
            + f", at {estimate.price_per_hour:g} an hour and device"
        )
    return lines


def of_precision(precision: Any) -> list[str]:
    """The lines that `repr` shows."""
    law = precision.law
    lines = [
        f"Precision: 95 % interval of N_opt, {precision.num_sweeps} sweeps simulated with noise "
        f"{precision.noise:g} of the loss",
        f"  law assumed: {law.E:.3g} + {law.A:.3g} / N^{law.alpha:.3g} + "
        f"{law.B:.3g} / D^{law.beta:.3g}",
    ]
    for row in precision.table.itertuples():
        lines.append(
            f"  at {flops(row.compute_budget)} FLOPs ({times(row.extrapolation)}x): "
            f"N {count(row.num_params)} within a factor {row.factor:.3g} "
            f"({count(row.num_params_low)} to {count(row.num_params_high)})"
            + ("" if row.predicted > 0.995 else f", told in {row.predicted:.0%} of the sweeps")
        )
    return lines + _additions(precision)


def estimate_html(estimate: Any) -> str:
    """The same, with a row a trial."""
    forms = {
        "compute_budget": ("C", flops),
        "size": ("size", str),
        "num_params": ("N", count),
        "num_tokens": ("D", count),
        "steps": ("steps", str),
        "batch_size": ("batch", str),
        "seconds": ("time", duration),
        "memory_bytes": ("memory", size_of),
    }
    table = _shown(estimate.table, forms)
    table.loc[estimate.table["seconds"].isna(), ["time", "memory"]] = ["done", ""]
    return _html(of_estimate(estimate), table)


def precision_html(precision: Any) -> str:
    """The same, with a row a budget."""
    forms = {
        "compute_budget": ("C", flops),
        "num_params": ("N_opt", count),
        "num_params_low": ("low", count),
        "num_params_high": ("high", count),
        "factor": ("within a factor", "{:.3g}".format),
        "covered": ("intervals that hold the truth", "{:.0%}".format),
        "predicted": ("sweeps that predict it", "{:.0%}".format),
    }
    return _html(of_precision(precision), _shown(precision.table, forms))


def _shown(table: pd.DataFrame, forms: dict[str, tuple[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame({head: table[name].map(form) for name, (head, form) in forms.items()})


def _html(lines: Sequence[str], table: pd.DataFrame) -> str:
    """Lines and a table; whatever they hold stays text."""
    head = "<br>".join(escape(line) for line in lines)
    return f"<div><p>{head}</p>{table.to_html(index=False, escape=True)}</div>"


def _additions(precision: Any) -> list[str]:
    """The budget and the size that narrow the interval most for their FLOPs."""
    lines = []
    for kind in ("budget", "size"):
        best = precision.additions[precision.additions["kind"] == kind]
        if best.empty:
            continue
        row = best.iloc[0]
        sizes = [str(size) for size in row["sizes"]]
        budget = f"{flops(row['compute_budget'])} FLOPs"
        what = f"{precision.size_param}={sizes[0]} at {budget}"
        if kind == "budget":
            what = f"{budget}, {len(sizes)} trials"
        lines.append(
            f"  {kind} to add that gains most for its FLOPs: {what}; for {row['share']:.1%} more "
            f"FLOPs {row['narrower']:.0%} narrower at 10x"
        )
    return lines


def _headline(plan: Any) -> str:
    text = (
        f"SweepPlan: {len(plan.trials)} trials of {plan.model_name}, "
        f"{plan.total_flops:.3g} FLOPs ({plan.flops_convention})"
    )
    if plan.done is None:
        return text
    left = sum(trial.flops for trial in plan.to_do)
    done = len(plan.trials) - len(plan.to_do)
    return f"{text}; {done} done, {left:.3g} FLOPs left"


def _columns(plan: Any) -> list[str]:
    budget, *others = HEAD
    unit = {"D": f"D, {plan.data_unit}"}
    named = [budget, plan.size_param, *(unit.get(name, name) for name in others)]
    return named + ["done"] * (plan.done is not None)


def _row(plan: Any, trial: Any) -> list[str]:
    epochs = trial.num_tokens / plan.available if plan.available else math.nan
    row = [
        flops(trial.compute_budget),
        str(trial.size),
        count(trial.num_params),
        count(trial.num_tokens),
        f"{trial.num_tokens / trial.num_params:.3g}",
        str(trial.steps),
        str(trial.batch_size),
        f"{trial.learning_rate:.3g}",
        f"{epochs:.2g}" if math.isfinite(epochs) else "?",
        f"{trial.flops:.3g}",
    ]
    if plan.done is not None:
        row.append("yes" if trial.trial_id in plan.done else "")
    return row


def _grid(plan: Any) -> list[str]:
    if len(plan.trials) > MOST_ROWS:
        return _by_budget(plan)
    return _aligned([_columns(plan), *(_row(plan, trial) for trial in plan.trials)])


def _by_budget(plan: Any) -> list[str]:
    head = ["C", "trials", f"{plan.size_param} (N)", f"D, {plan.data_unit}", "steps", "batch", "lr"]
    rows = []
    for budget in plan.compute_budgets:
        row = [trial for trial in plan.trials if trial.compute_budget == budget]
        first, last = row[0], row[-1]
        sizes = (f"{t.size} ({count(t.num_params)})" for t in (first, last))
        rows.append(
            [
                flops(budget),
                str(len(row)),
                " to ".join(sizes),
                f"{count(first.num_tokens)} to {count(last.num_tokens)}",
                f"{first.steps} to {last.steps}",
                _range(trial.batch_size for trial in row),
                _range(trial.learning_rate for trial in row if trial.lr_multiplier == 1),
            ]
        )
    return [*_aligned([head, *rows]), "a row a trial: .to_frame()"]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _said(plan: Any) -> list[str]:
    lines = _said_of_rates(plan)
    if plan.available is None:
        lines.append("the stream's length is not known: where it ends it is read again, and said")
    else:
        often = sum(t.num_tokens > MOST_EPOCHS * plan.available for t in plan.trials)
        if often:
            lines.append(
                f"{often} of the trials see their data over {MOST_EPOCHS:g} times: the fit leaves "
                "such runs out, unless they tell what repetition costs"
            )
    return lines + _said_of_short_rows(plan) + _said_of_skipped(plan)


def _said_of_short_rows(plan: Any) -> list[str]:
    sizes: dict[float, set[str]] = {}
    for trial in plan.trials:
        sizes.setdefault(trial.compute_budget, set()).add(str(trial.size))
    short = [budget for budget, own in sizes.items() if len(own) < LEAST_RUNS]
    if not short:
        return []
    named = ", ".join(map(flops, short[:3])) + (", ..." if len(short) > 3 else "")
    return [
        f"{len(short)} of {len(sizes)} budgets ({named}) have fewer than {LEAST_RUNS} sizes: no "
        "optimum is read off their curves, a law of all runs alone may tell; give more sizes="
    ]


def _said_of_rates(plan: Any) -> list[str]:
    """What of learning rate and batch a rule decided, and what other rates are tried."""
    lines, tuned = [], [t for t in plan.trials if t.lr_multiplier != 1]
    by_rule = ["learning rate"] * (plan.recipe.learning_rate == "auto")
    by_rule += ["batch"] * _batch_is_by_rule(plan)
    if by_rule:
        lines.append(f"{' and '.join(by_rule)} by DeepSeek LLM's rule in C (2024, section 3.1)")
    if tuned:
        tried = ", ".join(f"x{m:g}" for m in sorted({t.lr_multiplier for t in tuned}))
        lines.append(f"{len(tuned)} of the trials try other learning rates: {tried}")
    return lines


def _batch_is_by_rule(plan: Any) -> bool:
    recipe, unit = plan.recipe, plan.data_unit
    if (recipe.batch_size, recipe.batch_tokens, unit) != ("auto", None, "tokens"):
        return False
    rule = [
        recipe.examples_per_step(t.compute_budget, unit, plan.tokens_per_example)
        for t in plan.trials
    ]
    return rule == [t.batch_size for t in plan.trials]  # else the user's loader's


def _said_of_skipped(plan: Any) -> list[str]:
    """A line on values of the size parameter that build no model; one each on other points."""
    refused = [skip for skip in plan.skipped if math.isnan(skip.compute_budget)]
    lines = [
        f"passed over: {plan.size_param}={skip.size}: {skip.reason}"
        for skip in plan.skipped
        if skip not in refused
    ]
    if len(lines) > MOST_SKIPPED:
        lines[MOST_SKIPPED - 1 :] = [
            f"passed over: {len(lines) - MOST_SKIPPED + 1} more, see .skipped"
        ]
    if refused:
        first = refused[0]
        others = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        lines.append(
            f"no model at {plan.size_param}={first.size}{others}; the nearest others are taken "
            f"({first.reason})"
        )
    return lines


def _range(values: Iterable[float]) -> str:
    ordered = sorted(set(values))
    texts = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in ordered]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"


def _interval(ends: tuple[float, float], form: Any) -> str:
    said = between(*ends, form)
    return f" ({said})" if said else ""
