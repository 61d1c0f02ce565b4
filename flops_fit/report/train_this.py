"""What to train at a few budgets, in full: size, data, batch, learning rate, schedule, loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flops_fit.display import number_text
from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.laws.predict.paths import UNCONSTRAINED
from flops_fit.laws.predict.prediction import Prediction, predict_budget

BEYOND = 10.0  # the largest budget, and this multiple of it


@dataclass(frozen=True)
class TrainThis:
    """What to train.

    Attributes:
        budgets: Headings, one for each budget.
        rows: What it is, and its value for each budget.
    """

    budgets: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def train_this(findings: Findings) -> TrainThis | None:
    """What to train at the largest budget and at ten times it; None where no recipe was found."""
    if findings.recipe_law is None:
        return None
    found = []
    for C in (findings.largest_budget, BEYOND * findings.largest_budget):
        try:
            found.append(predict_budget(findings, C, UNCONSTRAINED))
        except (FitError, ArgumentError):
            break
    if not found:
        return None
    columns = [_rows(prediction, findings.recipe_law, findings.meta) for prediction in found]
    names = [name for name in columns[0] if any(column[name] for column in columns)]
    return TrainThis(
        tuple(f"{number_text.flops(prediction.compute_budget)} FLOPs" for prediction in found),
        tuple((name, tuple(column[name] for column in columns)) for name in names),
    )


def recipe_line(findings: Findings) -> list[str]:
    """The recipe that was found, in one line of a summary; nothing where none was."""
    recipe = findings.recipe_law
    if recipe is None:
        return []
    counts = findings.runs["role"].value_counts()
    p, q, r = (recipe.vector[i] for i in (1, 2, 4))
    laws = []
    if "learning_rate" in recipe.tuned:
        laws.append(f"learning rate ~ N^{p:.2f} D^{q:.2f}")
    if "batch_size" in recipe.tuned:
        laws.append(f"batch ~ D^{r:.2f}")
    checks = counts.get("check", 0)
    checked = f"and {checks} checks" if checks else "without a check"
    source = f"{counts.get('pilot', 0)} pilot runs {checked}"
    line = f"Recipe by {source}: {', '.join(laws)}"
    try:
        prediction = predict_budget(findings, findings.largest_budget, UNCONSTRAINED)
    except (FitError, ArgumentError):
        return [line]
    at = number_text.flops(findings.largest_budget)
    batch = _batch(prediction)
    known = ", ".join(filter(None, (_rate(prediction), batch and f"batch {batch}")))
    return [f"{line}; at {at} FLOPs {known}"]


def in_words(prediction: Prediction) -> str:
    """The recipe as part of a sentence; empty where there is none."""
    known = []
    if prediction.learning_rate is not None:
        known.append(f"a peak learning rate of {number_text.ratio(prediction.learning_rate)}")
    if prediction.batch_size is not None:
        known.append(f"{prediction.batch_size:,} examples a step")
    return f", with {' and '.join(known)}" if known else ""


def of_role(findings: Findings) -> str:
    """How many runs found or checked the recipe, in words for a summary; empty if none did."""
    others = len(findings.runs) - len(findings.sweep_runs)
    return f"; {others} more to find and check the recipe" if others else ""


def _rows(prediction: Prediction, recipe: RecipeLaw, meta: Mapping[str, str]) -> dict[str, str]:
    """What to train at one budget, by name; a value that is not known is empty."""
    unit, count = prediction.data_unit, number_text.count
    per_example = recipe.tokens_per_example
    batch_text = steps = ""
    if prediction.batch_size is not None:
        steps = f"{prediction.num_tokens / per_example / prediction.batch_size:,.0f}"
        batch_text = f"{_batch(prediction)} examples"
        if per_example != 1:
            batch_text += f", {count(prediction.batch_size * per_example)} {unit}"
    loss = number_text.with_interval(prediction.loss, prediction.loss_interval, number_text.loss)
    return {
        meta.get("size_param", "size"): "" if prediction.size is None else str(prediction.size),
        "parameters N": _with(prediction.num_params, prediction.num_params_interval),
        f"{unit} D": _with(prediction.num_tokens, prediction.num_tokens_interval),
        "batch": batch_text,
        "steps": steps,
        "peak learning rate": _rate(prediction, name=""),
        "schedule": _schedule(meta),
        "expected loss": loss if np.isfinite(prediction.loss) else "",
    }


def _with(value: float, interval: tuple[float, float]) -> str:
    return number_text.with_interval(value, interval, number_text.count)


def _rate(prediction: Prediction, name: str = "learning rate ") -> str:
    value, interval = prediction.learning_rate, prediction.learning_rate_interval
    if value is None or interval is None:
        return ""
    return name + number_text.with_interval(value, interval, number_text.ratio)


def _batch(prediction: Prediction) -> str:
    if prediction.batch_size is None or prediction.batch_size_interval is None:
        return ""
    interval = prediction.batch_size_interval
    return number_text.with_interval(prediction.batch_size, interval, number_text.whole)


def _schedule(meta: Mapping[str, str]) -> str:
    """The schedule in words, as far as the metadata tell."""
    schedule, warmup = meta.get("schedule", ""), meta.get("warmup", "")
    try:
        share = number_text.percent(float(warmup))
    except ValueError:
        share = warmup
    return ", ".join(
        part for part in (schedule, share and f"warm-up over {share} of steps") if part
    )
