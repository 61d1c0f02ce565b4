"""A plan, its time estimate and its expected precision as text, and as HTML for notebooks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from tabulate import tabulate

from flops_fit.display import html
from flops_fit.display.number_text import (
    NumberFormat,
    bent,
    between,
    count,
    duration,
    flops,
    memory,
    percent,
    ratio,
    span,
    times,
    whole,
    with_interval,
)
from flops_fit.laws.fitting.isoflop import LEAST_RUNS
from flops_fit.laws.runs.exclusions import MOST_EPOCHS
from flops_fit.records import Trial
from flops_fit.report.plan_recipe import recipe_remarks
from flops_fit.report.plan_view import EstimateView, PlanView, PrecisionView

MOST_ROWS = 40  # a plan of more trials is shown with one row per budget
MOST_SKIPPED = 5
MOST_BUDGETS_NAMED = 3


def of_plan(plan: PlanView) -> list[str]:
    """The lines of `repr(plan)`: totals, the grid, and what to know about it."""
    return [_headline(plan), *_grid(plan), *_remarks(plan)]


def as_text(plan: PlanView) -> str:
    """The lines of a plan as one text."""
    return "\n".join(of_plan(plan))


def plan_html(plan: PlanView) -> str:
    """The plan as HTML, with a table of one row per trial."""
    table = pd.DataFrame([_row(plan, trial) for trial in plan.trials], columns=_columns(plan))
    return html.block([_headline(plan), *_remarks(plan)], html.frame(table))


def of_estimate(estimate: EstimateView) -> list[str]:
    """The lines of `repr(estimate)`."""
    table = estimate.table
    to_do = table[table["seconds"].notna()]  # trials that are done have no time
    devices = f"{estimate.devices} {'device' if estimate.devices == 1 else 'devices'}"
    lines = [
        f"Estimate: {with_interval(estimate.seconds, estimate.seconds_interval, duration)} for "
        f"{len(to_do)} of {len(table)} trials on {devices} ({estimate.device})"
    ]
    if len(to_do):
        longest = to_do.iloc[int(to_do["seconds"].to_numpy().argmax())]
        lines.append(
            f"  total training time {duration(estimate.device_seconds)}; longest trial "
            f"{duration(longest['seconds'])} ({estimate.size_param}={longest['size']} at "
            f"{flops(longest['compute_budget'])} FLOPs)"
        )
    if estimate.rounds_seconds is not None:
        lines.append(
            "  these are the first trials; those that follow towards the goal take another "
            f"{between(*estimate.rounds_seconds, duration)} in simulated sweeps whose law holds"
        )
    if math.isfinite(estimate.memory_bytes):
        how = "measured" if estimate.memory_kind == "measured" else "estimated from tensor sizes"
        lines.append(f"  peak memory of a trial: {memory(estimate.memory_bytes)}, {how}")
    if math.isfinite(estimate.cost):
        lines.append(
            f"  cost: {with_interval(estimate.cost, estimate.cost_interval, ratio)}, at "
            f"{estimate.price_per_hour:g} per device and hour"
        )
    return lines


def of_precision(precision: PrecisionView) -> list[str]:
    """The lines of `repr(precision)`."""
    law = precision.law
    terms = f"{ratio(law.A)} / N^{ratio(law.alpha)} + {ratio(law.B)} / D^{ratio(law.beta)}"
    lines = [
        f"Precision: expected 95 % interval of N_opt, from {precision.num_sweeps} simulated sweeps "
        f"with noise {precision.noise:g} in ln L",
        f"  assumed law: {ratio(law.E)} + {bent(terms, law.gamma)}",
    ]
    if precision.is_of_first:
        lines.append("  by the first trials alone; .course() foretells those that follow")
    for row in precision.table.to_dict("records"):
        line = (
            f"  at {flops(row['compute_budget'])} FLOPs ({times(row['extrapolation'])}x): "
            f"N {count(row['num_params'])} within a factor {ratio(row['factor'])} "
            f"({between(row['num_params_low'], row['num_params_high'], count)})"
        )
        if row["predicted"] <= 0.995:  # else 100 %, rounded
            line += f", predicted in {percent(row['predicted'])} of the sweeps"
        lines.append(line)
    return lines + _additions(precision)


def estimate_html(estimate: EstimateView) -> str:
    """The estimate as HTML, with a table of one row per trial."""
    formats: dict[str, tuple[str, NumberFormat]] = {
        "compute_budget": ("C", flops),
        "size": (estimate.size_param, str),
        "num_params": ("N", count),
        "num_tokens": (f"D, {estimate.data_unit}", count),
        "steps": ("steps", whole),
        "batch_size": ("batch", whole),
        "seconds": ("time", duration),
        "memory_bytes": ("memory", memory),
    }
    table = _formatted(estimate.table, formats)
    table.loc[estimate.table["seconds"].isna(), ["time", "memory"]] = ["done", ""]
    return html.block(of_estimate(estimate), html.frame(table))


def precision_html(precision: PrecisionView) -> str:
    """The expected precision as HTML, with a table of one row per budget."""
    formats: dict[str, tuple[str, NumberFormat]] = {
        "compute_budget": ("C", flops),
        "num_params": ("N_opt", count),
        "num_params_low": ("low", count),
        "num_params_high": ("high", count),
        "factor": ("within a factor", ratio),
        "covered": ("intervals that contain the true value", percent),
        "predicted": ("sweeps that predict it", percent),
    }
    return html.block(of_precision(precision), html.frame(_formatted(precision.table, formats)))


def _formatted(
    table: pd.DataFrame, formats: Mapping[str, tuple[str, NumberFormat]]
) -> pd.DataFrame:
    return pd.DataFrame({head: table[name].map(form) for name, (head, form) in formats.items()})


def _additions(precision: PrecisionView) -> list[str]:
    """The budget and the size that narrow the interval most for their FLOPs."""
    lines = []
    for kind in ("budget", "size"):
        candidates = precision.additions[precision.additions["kind"] == kind]
        if candidates.empty:
            continue
        best = candidates.iloc[0]
        budget = f"{flops(best['compute_budget'])} FLOPs"
        if kind == "budget":
            what = f"{budget}, {len(best['sizes'])} trials"
        else:
            what = f"{precision.size_param}={best['sizes'][0]} at {budget}"
        lines.append(
            f"  best {kind} to add: {what}; {percent(best['share'])} more FLOPs make the interval "
            f"at 10x {percent(best['narrower'])} narrower"
        )
    return lines


def _headline(plan: PlanView) -> str:
    pilot = ""
    if plan.pilot is not None and plan.pilot.expected:
        pilot = f" and about {len(plan.pilot.expected)} more to find and check the recipe"
    text = (
        f"SweepPlan: {len(plan.trials)} trials{pilot} of {plan.model_name}, "
        f"{flops(plan.total_flops)} FLOPs ({plan.flops_convention})"
    )
    if plan.done is None:
        return text
    left = sum(trial.flops for trial in plan.to_do)
    done = sum(trial.trial_id in plan.done for trial in plan.trials)
    return f"{text}; {done} done, {flops(left)} FLOPs left"


def _columns(plan: PlanView) -> list[str]:
    columns = [
        "C", plan.size_param, "N", f"D, {plan.data_unit}", "D/N", "steps", "batch", "lr", "epochs",
        "FLOPs",
    ]  # fmt: skip
    return columns if plan.done is None else [*columns, "done"]


def _row(plan: PlanView, trial: Trial) -> list[str]:
    """The cells of a trial, in the order of `_columns`."""
    row = [
        flops(trial.compute_budget),
        str(trial.size),
        count(trial.num_params),
        count(trial.num_tokens),
        ratio(trial.num_tokens / trial.num_params),
        whole(trial.steps),
        whole(trial.batch_size),
        ratio(trial.learning_rate),
        times(trial.num_tokens / plan.available) if plan.available else "?",
        flops(trial.flops),
    ]
    if plan.done is not None:
        row.append("yes" if trial.trial_id in plan.done else "")
    return row


def _grid(plan: PlanView) -> list[str]:
    if len(plan.trials) > MOST_ROWS:
        return [*_by_budget(plan), "one row per trial: .to_frame()"]
    return _aligned(_columns(plan), [_row(plan, trial) for trial in plan.trials])


def _by_budget(plan: PlanView) -> list[str]:
    """One line per budget, with the ranges of its trials."""
    head = ["C", "trials", f"{plan.size_param} (N)", f"D, {plan.data_unit}", "steps", "batch", "lr"]
    rows = []
    for budget in plan.compute_budgets:
        trials = [trial for trial in plan.trials if trial.compute_budget == budget]
        first, last = trials[0], trials[-1]  # the smallest and the largest size
        rows.append(
            [
                flops(budget),
                str(len(trials)),
                " to ".join(f"{t.size} ({count(t.num_params)})" for t in (first, last)),
                f"{count(first.num_tokens)} to {count(last.num_tokens)}",
                between(first.steps, last.steps, whole),
                span(trial.batch_size for trial in trials),
                span(trial.learning_rate for trial in trials if trial.lr_multiplier == 1),
            ]
        )
    return _aligned(head, rows)


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    # The head is passed as a row: tabulate would pad the columns by two more characters for it.
    text = tabulate([head, *rows], tablefmt="plain", stralign="right", disable_numparse=True)
    return [line.rstrip() for line in text.splitlines()]


def _remarks(plan: PlanView) -> list[str]:
    return [
        *plan.data_notes,
        *_chosen(plan),
        *(plan.goal.lines if plan.goal is not None else ()),
        *recipe_remarks(plan),
        *_repetition(plan),
        *_short_rows(plan),
        *_skipped(plan),
    ]


def _chosen(plan: PlanView) -> list[str]:
    """What the budgets were chosen for, and what was expected of them."""
    if plan.chosen is None:
        return []
    return [f"budgets chosen for {plan.chosen.spending}", *plan.chosen.lines]


def _repetition(plan: PlanView) -> list[str]:
    if plan.available is None:
        return ["the length of the stream is unknown: if it ends, it is read again, with a warning"]
    repeated = sum(t.num_tokens > MOST_EPOCHS * plan.available for t in plan.trials)
    if not repeated:
        return []
    return [
        f"{repeated} of the trials train for more than {MOST_EPOCHS:g} epochs; such runs are "
        "excluded from the fit unless a law of repeated data can be fitted"
    ]


def _short_rows(plan: PlanView) -> list[str]:
    """Budgets with too few sizes for an IsoFLOP curve."""
    # Sizes, not trials: a size may be trained at several learning rates.
    sizes: dict[float, set[str]] = {}
    for trial in plan.trials:
        sizes.setdefault(trial.compute_budget, set()).add(str(trial.size))
    short = [budget for budget, values in sizes.items() if len(values) < LEAST_RUNS]
    if not short:
        return []
    named = ", ".join(map(flops, short[:MOST_BUDGETS_NAMED]))
    if len(short) > MOST_BUDGETS_NAMED:
        named += ", ..."
    return [
        f"{len(short)} of {len(sizes)} budgets ({named}) have fewer than {LEAST_RUNS} sizes: no "
        "optimum can be read from their IsoFLOP curves, only from a law of all runs; pass more "
        "sizes="
    ]


def _skipped(plan: PlanView) -> list[str]:
    """One line per skipped point, and one for all sizes at which the model cannot be built."""
    # Sizes that build no model are skipped at every budget: their budget is NaN.
    unbuildable = [skip for skip in plan.skipped if math.isnan(skip.compute_budget)]
    lines = [
        f"skipped: {plan.size_param}={skip.size}: {skip.reason}"
        for skip in plan.skipped
        if not math.isnan(skip.compute_budget)
    ]
    if len(lines) > MOST_SKIPPED:
        more = len(lines) - MOST_SKIPPED + 1
        lines = [*lines[: MOST_SKIPPED - 1], f"skipped: {more} more, see .skipped"]
    if unbuildable:
        first = unbuildable[0]
        others = f" and {len(unbuildable) - 1} more" if len(unbuildable) > 1 else ""
        lines.append(
            f"no model at {plan.size_param}={first.size}{others}; the nearest other sizes are used "
            f"({first.reason})"
        )
    return lines
