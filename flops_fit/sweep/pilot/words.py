"""What a pilot and its check have found, as lines for the user."""

from __future__ import annotations

from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.report.number_text import flops, ratio
from flops_fit.sweep.pilot.recipes import Chosen
from flops_fit.sweep.pilot.search import Search
from flops_fit.sweep.plan.grid import PilotPlan
from flops_fit.sweep.plan.isoflop_row import IsoflopRows, plural


def law_in_words(rows: IsoflopRows, pilot: PilotPlan, cells: Search, num_checks: int) -> str:
    """What pilot and check found."""
    spent = flops(sum(trial.flops for trial in cells.trials))
    source = f"Pilot ({plural(len(cells.trials), 'trial')}, {spent} FLOPs)"
    if cells.cut_short:
        source += ", ended at what it may cost,"
    if num_checks:
        source += f" and check ({plural(num_checks, 'trial')})"
    if rows.law is None:
        return f"{source}: the losses tell no rate or batch; the rule of DeepSeek LLM is used"
    return f"{source}: {recipe_in_words(rows.law, pilot)}"


def recipe_in_words(law: RecipeLaw, pilot: PilotPlan) -> str:
    """Rate and batch in the middle of the pilot, with intervals, and how they grow."""
    N, D = law.centre
    parts = []
    if "learning_rate" in pilot.tuned:
        low, high = map(float, law.learning_rate_interval(N, D))
        p, q = law.vector[1:3]
        rate = float(law.learning_rate(N, D))
        parts.append(
            f"learning rate {ratio(rate)} ({ratio(low)} to {ratio(high)}) x N^{p:.2f} D^{q:.2f}"
        )
    if "batch_size" in pilot.tuned:
        low, high = map(float, law.batch_size_interval(N, D))
        batch = float(law.batch_size(N, D))
        parts.append(
            f"batch {ratio(batch)} ({ratio(low)} to {ratio(high)}) examples x D^{law.vector[4]:.2f}"
        )
    return f"{', '.join(parts)} about N = {N:.3g}, D = {D:.3g}"


def chosen_in_words(chosen: Chosen) -> tuple[str, ...]:
    """Which trained trials are off, and whether they are trained again."""
    if not chosen.off:
        return ()
    named = ", ".join(f"{t.size} at {flops(t.compute_budget)} FLOPs" for t in chosen.off[:5])
    more = f" and {len(chosen.off) - 5} more" if len(chosen.off) > 5 else ""
    trials = f"{plural(len(chosen.off), 'trial')} off ({named}{more})"
    fact = f"The check at the ends shows another recipe: {trials}"
    if chosen.again:
        return (f"{fact}; trained again, {flops(chosen.flops)} FLOPs",)
    return (
        f"{fact}; to train them again would cost {flops(chosen.flops)} FLOPs and is left to you: "
        "what they are off by widens the intervals",
    )
