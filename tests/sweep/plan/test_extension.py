from dataclasses import replace

import pytest
from planned import UNLIMITED

from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.recipe_law import FEW_STEPS
from flops_fit.sweep.plan.extension import beyond, extension
from flops_fit.sweep.plan.planner import make_plan
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.task import Task

SMALL = replace(UNLIMITED, batch_size=4)


@pytest.fixture
def rows(mlp, classes, cross_entropy):
    def plan(recipe=SMALL, **options):
        task = Task(mlp, "width", {}, classes, cross_entropy)
        planned = make_plan(task, PlanRequest([1e9], recipe=recipe, **options))
        return planned.rows, planned.plan.trials

    return plan


@pytest.mark.parametrize("edge", ["low", "high"])
def test_sizes_beyond_an_edge_lie_at_the_spacing_of_the_row(rows, edge):
    planned_rows, row = rows()
    spacing = (row[-1].num_params / row[0].num_params) ** (1 / 6)
    added = beyond(planned_rows, row, edge)
    assert [trial.added for trial in added] == [True, True]
    assert {trial.trial_id for trial in added}.isdisjoint(trial.trial_id for trial in row)
    assert [trial.size_index for trial in added] == [7, 8]
    end, step = (row[0], 1 / spacing) if edge == "low" else (row[-1], spacing)
    for k, trial in enumerate(added, 1):
        assert trial.num_params == pytest.approx(end.num_params * step**k, rel=0.05)
        assert trial.flops == pytest.approx(1e9, rel=0.01)


def test_each_size_added_is_tried_at_every_learning_rate(rows):
    planned_rows, row = rows(replace(SMALL, lr_multipliers=(0.5, 1, 2)))
    added = beyond(planned_rows, row, "high")
    assert [trial.lr_multiplier for trial in added] == [0.5, 1, 2] * 2


def test_nothing_is_added_without_enough_steps_or_data_or_to_given_sizes(rows):
    planned_rows, row = rows(UNLIMITED)
    assert row[-1].steps < 1.2 * FEW_STEPS
    assert beyond(planned_rows, row, "high") == []
    planned_rows, row = rows(replace(SMALL, max_epochs=1.001 * row[0].num_tokens / 1900))
    assert beyond(planned_rows, row, "low") == []
    planned_rows, row = rows(sizes=[8, 16, 32, 64])
    assert beyond(planned_rows, row, "low") == beyond(planned_rows, row, "high") == []
    falling = {trial.trial_id: 1 / trial.num_params for trial in row}
    added, (message,) = extension(planned_rows, row, falling)
    assert added == []
    assert message.endswith("of its row or beyond; no size is added, because sizes= was passed")


def test_a_row_is_extended_only_where_its_least_loss_lies_at_an_edge(rows):
    planned_rows, row = rows()

    def curve(a):
        law = ParametricLaw(1.0, a, 100.0, 0.35, 0.30)
        return {t.trial_id: float(law.loss(t.num_params, t.num_tokens)) for t in row}

    assert extension(planned_rows, row, curve(66.0)) == ([], [])
    assert extension(planned_rows, row, {}) == ([], [])
    for a, edge, side in ((1.0, "low", "smallest"), (5000.0, "high", "largest")):
        added, (message,) = extension(planned_rows, row, curve(a))
        assert added == beyond(planned_rows, row, edge)
        assert f"the optimum lies at the {side} size of its row or beyond: 2 " in message
