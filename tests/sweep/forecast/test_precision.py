"""What could be added to a plan, and its expected precision."""

from dataclasses import replace

import pytest
from planned import BUDGETS, UNLIMITED

from flops_fit import Recipe
from flops_fit.laws.design import simulation
from flops_fit.laws.model.recipe_law import FEW_STEPS
from flops_fit.sweep.forecast.additions import possible_additions


def additions(plan):
    return possible_additions(plan.origin.rows, plan.trials)


def test_budgets_above_below_and_between_and_sizes_beyond_either_end(planned):
    plan = planned(recipe=replace(UNLIMITED, batch_size=4))
    added = additions(plan)
    assert [each.compute_budget for each in added if each.kind == "budget"] == [1e8, 3.16e9, 1e11]
    for budget in plan.compute_budgets:
        row = [t.num_params for t in plan.trials if t.compute_budget == budget]
        beyond = [e for e in added if e.kind == "size" and e.compute_budget == budget]
        below, above = sorted(float(each.N[0]) for each in beyond)
        assert below < min(row) < max(row) < above
        assert above / max(row) == pytest.approx((max(row) / min(row)) ** (1 / 6), rel=0.1)
        assert all(each.flops == pytest.approx(budget, rel=0.02) for each in beyond)


def test_only_what_can_be_trained_is_proposed(planned):
    scarce = planned(compute_budgets=[1e9], recipe=Recipe(max_epochs=200, pilot=False))
    for each in additions(scarce):
        assert (each.D <= 200 * 1900).all()
        assert (each.D / 64 >= 0.9 * FEW_STEPS).all()


def test_no_size_is_added_to_given_sizes(planned):
    assert {each.kind for each in additions(planned(sizes=[4, 8, 16, 32]))} == {"budget"}


@pytest.mark.slow
def test_the_precision_as_text_and_table(planned, monkeypatch):
    monkeypatch.setattr(simulation, "DRAWS", 100)
    monkeypatch.setattr("flops_fit.sweep.forecast.precision.SWEEPS", 2)
    plan = planned(recipe=replace(UNLIMITED, lr_multipliers=(0.5, 1)))
    precision = plan.precision(noise=0.002)
    head, law, *rest = repr(precision).splitlines()
    assert "2 simulated sweeps with noise 0.002" in head
    assert law.startswith("  assumed law: 1.82 + ")
    assert [line.split(" FLOPs")[0].strip() for line in rest[:3]] == [
        f"at {10**k * BUDGETS[-1]:.3g}" for k in range(3)
    ]
    assert rest[3].startswith("  best budget to add: ")
    assert rest[4].startswith("  best size to add: width=")
    assert precision._repr_html_().count("<tr") == 4
    assert precision.table["covered"].between(0, 1).all()


def test_a_plan_without_its_task_has_no_additions(planned, monkeypatch):
    monkeypatch.setattr("flops_fit.sweep.forecast.precision.SWEEPS", 1)
    precision = replace(planned(), origin=None).precision()
    assert precision.additions.empty
    assert "to add" not in repr(precision)
