"""Sweeps paired with another: ids, seeds, sizes and budgets."""

import math
from dataclasses import replace

import pytest
from sweeps import SMALL_BUDGETS, SMALL_SIZES, UNLIMITED, Net, data, plan_of
from torch import nn

import flops_fit
from flops_fit.errors import ArgumentError
from flops_fit.records import Run
from flops_fit.sweep.data.batch_order import trial_seed
from flops_fit.sweep.plan.planner import make_plan
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.task.twins import Twins


class Wider(Net):
    """Another model of the same size parameter."""


class Deeper(Net):
    """A model whose size parameter has another name."""

    def __init__(self, depth: int) -> None:
        super().__init__(depth)


def finished(trial, **changes):
    run = Run(
        trial.trial_id, "run", trial.compute_budget, trial.size, trial.num_params,
        trial.num_tokens, trial.flops, 1.0, 1.0, 0, "complete",
    )  # fmt: skip
    return replace(run, **changes)


@pytest.fixture(scope="module")
def other():
    """The trials of a sweep, and what another one needs of them."""
    _, planned = plan_of()
    meta = {
        "setting": planned.plan.setting,
        "data_fingerprint": planned.source.fingerprint,
        "held_out": "blocks",
        "size_param": "width",
    }
    trials = planned.plan.trials
    return trials, Twins.of("other", meta, map(finished, trials))


def paired(twins, model=Wider, param="width", budgets=SMALL_BUDGETS, sizes=SMALL_SIZES):
    task = Task(model, param, dataset=data(), loss_fn=nn.functional.cross_entropy)
    return make_plan(task, PlanRequest(budgets, sizes, UNLIMITED, paired_with=twins)).plan


def test_trials_share_the_seed_and_not_the_id(other):
    trials, twins = other
    plan = paired(twins)
    assert [trial_seed(t) for t in plan.trials] == [trial_seed(t) for t in trials]
    assert not {t.trial_id for t in plan.trials} & {t.trial_id for t in trials}
    assert "8 of 8 trials begin from the state" in plan.data_notes[-1]


def test_pairing_makes_another_setting_and_other_trials(other):
    alone, plan = paired(None), paired(other[1])
    assert alone.setting != plan.setting
    assert not {t.trial_id for t in plan.trials} & {t.trial_id for t in alone.trials}


def test_budgets_and_sizes_are_those_of_the_other(other):
    trials, twins = other
    plan = paired(twins, budgets=None, sizes=None)
    assert [(t.compute_budget, t.size) for t in plan.trials] == [
        (t.compute_budget, t.size) for t in trials
    ]


def test_sizes_of_another_name_are_paired_by_their_place(other):
    trials, twins = other
    plan = paired(twins, Deeper, "depth", sizes=(40, 90, 180, 390, 700))
    places = [trial_seed(t) for t in plan.trials if t.at_own_rate]
    assert places == [trial_seed(t) for t in trials]
    assert sum(not t.at_own_rate for t in plan.trials) == 2


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 8),
        ({"state": "failed"}, 0),
        ({"role": "pilot"}, 0),
        ({"role": "check"}, 0),
        ({"lr_multiplier": 2.0}, 0),
        ({"size": None}, 0),
    ],
)
def test_only_finished_trials_of_the_sweep_itself_are_twins(other, changes, count):
    runs = [finished(trial, **changes) for trial in other[0]]
    assert sum(map(len, Twins.of("other", {}, runs).rows.values())) == count


@pytest.mark.parametrize(
    ("twins", "budgets", "said"),
    [
        (lambda t: replace(t, rows={}), SMALL_BUDGETS, "no trial of 'other' has finished"),
        (lambda t: t, (6e7, 5e8), "no finished trials at 5e\\+08 FLOPs; its budgets are"),
        (lambda t: replace(t, data_fingerprint="x"), SMALL_BUDGETS, "trained on other data"),
    ],
)
def test_what_cannot_be_paired_is_refused(other, twins, budgets, said):
    with pytest.raises(ArgumentError, match=said):
        paired(twins(other[1]), budgets=budgets)


def test_variants_of_the_rate_share_the_twins_seed(other):
    task = Task(Wider, "width", dataset=data(), loss_fn=nn.functional.cross_entropy)
    recipe = flops_fit.Recipe(max_epochs=1e9, pilot=False, lr_multipliers=(1, 2))
    request = PlanRequest(SMALL_BUDGETS, SMALL_SIZES, recipe, paired_with=other[1])
    trials = make_plan(task, request).plan.trials
    assert len({t.trial_id for t in trials}) == 16
    assert len({trial_seed(t) for t in trials}) == 8
    assert not any(math.isnan(t.learning_rate) for t in trials)
