"""How a plan finds or sets learning rate and batch, as lines of text."""

from __future__ import annotations

from flops_fit.display.number_text import flops, percent, span
from flops_fit.laws.model.recipe_law import ENOUGH_STEPS
from flops_fit.laws.model.recipe_rules import batch_by_rule
from flops_fit.report.plan_view import PlanView


def recipe_remarks(plan: PlanView) -> list[str]:
    """How learning rate and batch are found or set, and which other rates are tried."""
    lines = _pilot(plan)
    for name, rule in plan.rules.items():
        if plan.pilot is None or name not in plan.pilot.tuned:
            lines.append(_by_rule(plan, name, rule))
    tuned = [trial for trial in plan.trials if trial.lr_multiplier != 1]
    if tuned:
        multipliers = sorted({trial.lr_multiplier for trial in tuned})
        listed = ", ".join(f"x{multiplier:g}" for multiplier in multipliers)
        lines.append(f"{len(tuned)} of the trials use other learning rates: {listed}")
    return lines


def _pilot(plan: PlanView) -> list[str]:
    """What is trained to find the recipe, and what it costs."""
    pilot = plan.pilot
    if pilot is None:
        return []
    tuned = " and ".join(name.replace("_", " ") for name in pilot.tuned)
    if plan.found is not None:
        return [f"{tuned}: as the pilot found them"]
    total = sum(trial.flops for trial in plan.trials)
    sizes = ", ".join(map(str, pilot.sizes))
    lines = [
        f"{tuned} above: by a rule, until a pilot finds them at {flops(pilot.budget)} FLOPs with "
        f"{plan.size_param}={sizes}, for at most {flops(pilot.most_flops)} FLOPs "
        f"({percent(pilot.most_flops / total)} of the sweep)"
    ]
    if "batch_size" in pilot.tuned:
        by_rule = [
            batch_by_rule(
                plan.rules["batch_size"], t.compute_budget, t.num_params, t.num_tokens,
                plan.data_unit, plan.tokens_per_example,
            )
            for t in plan.trials
        ]  # fmt: skip
        lines.append(
            f"the rule's own batches would be {span(by_rule)} examples; they are smaller where "
            f"{ENOUGH_STEPS:,} steps need it"
        )
    if pilot.check_flops:
        lines.append(
            "after the sweep they are checked at both ends of a row, for "
            f"{flops(pilot.check_flops)} FLOPs ({percent(pilot.check_flops / total)})"
        )
    else:
        lines.append("they are not checked after the sweep: it is too small for that")
    return lines


def _by_rule(plan: PlanView, name: str, rule: str) -> str:
    """A published rule that is followed."""
    source = {
        "deepseek": "DeepSeek LLM (2024, section 3.1)",
        "steplaw": "Step Law (Li et al. 2025)",
        "porian": "Porian et al. (2024)",
    }[rule]
    if name == "batch_size" and plan.data_unit == "examples":
        return f"batch size: {plan.trials[0].batch_size} examples; published rules are for tokens"
    return f"{name.replace('_', ' ')} by the rule of {source}"
