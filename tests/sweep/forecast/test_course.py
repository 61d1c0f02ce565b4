from dataclasses import replace

import pytest
import torch
from sweeps import Net, data, plan_of

import flops_fit
from flops_fit.errors import ArgumentError
from flops_fit.sweep.forecast import course
from flops_fit.sweep_plan import SweepPlan


@pytest.fixture(scope="module")
def plan():
    return flops_fit.plan_sweep(
        Net, "width", dataset=data(), loss_fn=torch.nn.functional.cross_entropy,
        compute_budgets=[1e10, 1e12], recipe=flops_fit.Recipe(max_epochs=1e12, pilot=False),
        target=1e13, until=1.3,
    )  # fmt: skip


def test_a_plan_tells_its_goal_and_how_it_begins(plan):
    text = repr(plan)
    assert "at 1e+13 FLOPs the interval of N_opt is to span at most 1.3x" in text
    assert "12 trials" in text
    assert "9 budgets from 1e+10 to 1e+12 FLOPs" in text


@pytest.mark.slow
def test_the_course_is_foretold_by_whole_simulated_sweeps(plan, monkeypatch):
    monkeypatch.setattr(course, "SWEEPS", 2)
    found = plan.course(noise=0.003)
    low, high = found.flops_interval
    assert plan.total_flops <= low <= found.flops <= high <= plan.goal.max_flops
    assert found.num_trials >= 12
    assert (found.reached == 1) == (found.ends == ())
    assert "of 2 simulated sweeps" in repr(found)
    assert "Course" in found._repr_html_()


@pytest.mark.slow
def test_a_course_whose_first_trials_determine_no_law_goes_on(plan, monkeypatch):
    monkeypatch.setattr(course, "SWEEPS", 1)
    found = replace(plan, trials=plan.trials[:4]).course(noise=0.003)
    assert found.num_trials >= 12
    assert "the runs determine no law" not in found.ends


def test_the_precision_of_first_trials_without_a_law_says_what_to_call(plan):
    with pytest.raises(ArgumentError, match=r"first 4 trials alone determine no law.*\.course\(\)"):
        replace(plan, trials=plan.trials[:4]).precision()
    with pytest.raises(ArgumentError, match="cannot separate the law's five parameters"):
        replace(plan, trials=plan.trials[:4], goal=None).precision()


def test_a_plan_without_a_goal_has_no_course():
    _, planned = plan_of()
    with pytest.raises(ArgumentError, match="pass target= to plan_sweep"):
        SweepPlan.of(planned.plan).course()


@pytest.mark.parametrize("noise", [0, -1, 0.9, "x"])
def test_noise_must_be_a_share_of_the_loss(plan, noise):
    with pytest.raises(ArgumentError, match="noise"):
        plan.course(noise=noise)


def test_flops_that_do_not_suffice_to_begin_are_told():
    with pytest.raises(ArgumentError, match="trials that the sweep begins with take"):
        flops_fit.plan_sweep(
            Net, "width", dataset=data(), loss_fn=torch.nn.functional.cross_entropy,
            compute_budgets=[1e10, 1e12], recipe=flops_fit.Recipe(max_epochs=1e12, pilot=False),
            target=1e13, max_flops=1e11,
        )  # fmt: skip


def test_a_goal_changes_no_id_of_a_trial(plan):
    grid = flops_fit.plan_sweep(
        Net, "width", dataset=data(), loss_fn=torch.nn.functional.cross_entropy,
        compute_budgets=[1e10, 3.16e10], recipe=flops_fit.Recipe(max_epochs=1e12, pilot=False),
    )  # fmt: skip
    first = {trial.trial_id for trial in plan.trials if trial.compute_budget < 5e10}
    assert first <= {trial.trial_id for trial in grid.trials}
    assert replace(plan, goal=None).setting == grid.setting


def test_estimate_and_precision_tell_that_more_trials_follow(plan, monkeypatch):
    monkeypatch.setattr(course, "SWEEPS", 2)
    found = plan.estimate(calibrate=False, flops_per_second=1e9, devices=2)
    low, high = (end - plan.total_flops for end in plan.course().flops_interval)
    assert found.rounds_seconds == pytest.approx((low / 2e9, high / 2e9))
    assert "these are the first trials; those that follow" in repr(found)
    assert "by the first trials alone" in repr(plan.precision(noise=0.003))


def test_estimate_and_precision_of_a_grid_speak_of_all_its_trials():
    _, planned = plan_of()
    grid = SweepPlan.of(planned.plan)
    found = grid.estimate(calibrate=False, flops_per_second=1e9)
    assert found.rounds_seconds is None
    assert "first trials" not in repr(found)
