"""What a pilot and its check have found, as lines for the user."""

from __future__ import annotations

from flops_fit.display.number_text import flops
from flops_fit.sweep.pilot.recipes import Chosen
from flops_fit.sweep.pilot.search import Search
from flops_fit.sweep.plan.isoflop_row import IsoflopRows, plural


def law_in_words(rows: IsoflopRows, cells: Search, num_checks: int) -> str:
    """What pilot and check found."""
    spent = flops(sum(trial.flops for trial in cells.trials))
    source = f"Pilot ({plural(len(cells.trials), 'trial')}, {spent} FLOPs)"
    if cells.cut_short:
        source += " (ended at what it may cost)"
    if num_checks:
        source += f" and check ({plural(num_checks, 'trial')})"
    if rows.law is None:
        return f"{source}: the losses tell no rate or batch; the rule of DeepSeek LLM is used"
    return f"{source}: {rows.law}"


def chosen_in_words(chosen: Chosen, size_param: str) -> tuple[str, ...]:
    """Which trained trials are off, and whether they are trained again."""
    if not chosen.off:
        return ()
    named = ", ".join(
        f"{size_param}={t.size} at {flops(t.compute_budget)} FLOPs" for t in chosen.off[:5]
    )
    more = f" and {len(chosen.off) - 5} more" if len(chosen.off) > 5 else ""
    trials = f"{plural(len(chosen.off), 'trial')} off ({named}{more})"
    fact = f"The check at the ends shows another recipe: {trials}"
    if chosen.again:
        return (f"{fact}; trained again, {flops(chosen.flops)} FLOPs",)
    return (
        f"{fact}; to train them again would cost {flops(chosen.flops)} FLOPs and is left to you: "
        "what they are off by widens the intervals",
    )
