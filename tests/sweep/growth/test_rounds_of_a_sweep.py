"""A sweep with a goal, grown round by round on planted losses."""

import json
import math
from dataclasses import replace

import pytest
import torch
from pilots import run_of, trained
from sweeps import Net, data

import flops_fit
from flops_fit import prepare, tracking
from flops_fit.errors import ArgumentError
from flops_fit.laws.design.course import NO_LAW
from flops_fit.laws.design.goal import Goal
from flops_fit.laws.design.rounds import Reached
from flops_fit.sweep.growth.points import begun_trials, possible_trials
from flops_fit.sweep.growth.rounds import Round, Rounds
from flops_fit.sweep.growth.rounds_file import ROUNDS, add_round, last_points, read_rounds
from flops_fit.sweep.plan.grid import ChosenBudgets
from flops_fit.sweep.plan.planner import make_plan
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.task import Task

NO_PILOT = flops_fit.Recipe(max_epochs=1e12, pilot=False)


class Untuned:
    """A law of rate and batch by which all are as good."""

    def excess(self, *_):
        return 0.0


def stages_to(until=1.2, **goal):
    task = Task(Net, "width", dataset=data(), loss_fn=torch.nn.functional.cross_entropy)
    request = PlanRequest([1e10, 1e12], None, NO_PILOT, goal=Goal(1e13, until, **goal))
    return prepare.stages(make_plan(task, request))


@pytest.fixture(scope="module")
def stages():
    return stages_to()


@pytest.fixture(scope="module")
def grown(stages):
    """The sweep, trained to its end: last stage, runs and trials of each round."""
    return trained(stages, Untuned(), noise=0.003)


def test_a_sweep_begins_with_four_sizes_of_low_rows(stages):
    by_budget = {}
    for trial in stages.planned:
        by_budget.setdefault(trial.compute_budget, []).append(trial)
    assert [len(row) for row in by_budget.values()] == [4, 4, 4]
    assert max(by_budget) <= 1.1e11


def test_it_ends_once_the_answer_is_precise(grown):
    stage, _, counts = grown
    assert stage.round.trials == ()
    assert stage.round.reached.span <= 1.2
    assert "as precise as asked for" in stage.round.message
    assert counts[0] == 12


def test_the_sweep_goes_on_where_it_was_interrupted_in_the_middle_of_a_round(stages, grown):
    _, runs, _ = grown
    begun = [run for run in runs if run.compute_budget <= 1.1e11][:14]
    stage = stages.next(begun, {run.trial_id: run.loss for run in begun})
    assert {run.trial_id for run in begun} <= {trial.trial_id for trial in stage.trials}


def test_a_trial_that_has_begun_is_finished_before_a_round_is_chosen(stages, grown):
    _, runs, _ = grown
    settled = {run.trial_id: run.loss for run in runs[:-1]}
    stage = stages.next(runs, settled)
    assert stage.round is None
    assert runs[-1].trial_id in {trial.trial_id for trial in stage.trials}


@pytest.mark.slow
def test_a_stricter_goal_goes_on_with_the_same_trials(grown):
    _, runs, _ = grown
    stage = stages_to(until=1.02).next(runs, {run.trial_id: run.loss for run in runs})
    ids = {trial.trial_id for trial in stage.trials}
    assert {run.trial_id for run in runs} < ids


def test_trials_begun_are_found_by_their_budget_and_size(stages, grown):
    _, runs, _ = grown
    budgets = stages.rounds.goal.budgets
    found = begun_trials(stages.rows, runs, budgets)
    assert {trial.trial_id for trial in found} == {run.trial_id for run in runs}
    assert begun_trials(stages.rows, runs, [5e13]) == []


def test_no_size_is_possible_twice_and_all_are_feasible(stages):
    first = list(stages.planned)
    budget = first[0].compute_budget
    possible = possible_trials(stages.rows, first, {budget: 2e4})
    done = [t.num_params for t in first if t.compute_budget == budget]
    for trial in possible:
        assert min(abs(math.log10(trial.num_params / N)) for N in done) > 0.06
        assert trial.steps >= 200


def test_a_sweep_without_a_law_begins_further_rows(stages):
    runs = [run_of(trial, 2.0) for trial in stages.planned[:4]]
    found = stages.rounds.next(stages.rows, stages.planned[:4], runs)
    assert len(found.trials) == 4
    assert set(found.why) == {NO_LAW}


def test_a_sweep_without_a_law_ends_where_its_flops_are_spent(stages):
    goal = Goal(1e13, 1.2, max_flops=4.1e10).between([1e10, 1e12])
    runs = [run_of(trial, 2.0) for trial in stages.planned[:4]]
    found = Rounds(goal).next(stages.rows, stages.planned[:4], runs)
    assert found.trials == ()
    assert NO_LAW in found.message


@pytest.mark.slow
def test_a_round_whose_trials_all_diverged_does_not_stop_the_sweep(stages, grown):
    _, runs, _ = grown
    first = [run for run in runs if run.trial_id in {t.trial_id for t in stages.planned}]
    stage = stages.next(first, {run.trial_id: run.loss for run in first})
    lost = [run_of(trial, math.nan) for trial in stage.round.trials]
    again = stages.next([*first, *lost], {run.trial_id: run.loss for run in [*first, *lost]})
    chosen = {trial.trial_id for trial in again.round.trials}
    assert chosen.isdisjoint({run.trial_id for run in lost})


@pytest.fixture
def ledger(tmp_path):
    return tracking.open_ledger("rounds", f"sqlite:///{tmp_path}/mlflow.db")


def test_rounds_are_written_once_each_and_read_again(stages, ledger):
    trials = stages.planned[:2]
    goal, other = stages.rounds.goal, Goal(3e13, 1.2, budgets=(1e10,))
    earlier = Round(other, Reached(1e12, 12, 1.1, 1.1), "To another target")
    on = Reached(1e12, 12, math.inf, 1.1)
    first = Round(goal, on, "It goes on", tuple(trials), ("a: b", "c"))
    last = Round(goal, Reached(2e12, 14, 1.2, 1.1), "It ends")
    for found in (earlier, first, first, last):
        add_round(ledger, found, "width")
    table = tracking.read_artifact(ledger, ROUNDS, read_rounds)
    assert table["span"].tolist() == [math.inf, 1.2]
    assert table["next"].iloc[0][0].endswith("a: b")
    assert table["message"].tolist() == ["It goes on", "It ends"]


def test_the_last_round_is_the_one_reached_last_though_it_was_reached_before(stages, ledger):
    reached = Reached(2e12, 14, 1.2, 1.1)
    strict = Round(replace(stages.rounds.goal, until=1.1), reached, "Missed")
    loose = Round(replace(stages.rounds.goal, until=1.3), reached, "Reached")
    for found in (strict, loose, strict):
        add_round(ledger, found, "width")
    table = tracking.read_artifact(ledger, ROUNDS, read_rounds)
    assert table["message"].tolist() == ["Reached", "Missed"]


@pytest.mark.parametrize("text", ["", "{}", "[1, null]", '[{"next": 3}]', '[{"span": "x"}]', "[["])
def test_a_damaged_file_of_rounds_is_read_as_far_as_it_can_be(tmp_path, text):
    path = tmp_path / ROUNDS
    path.write_text(text)
    table = read_rounds(path)
    assert {"flops", "num_runs", "span", "loss_span", "next", "message"} < set(table.columns)
    assert len(table) == (1 if "span" in text else 0)


def test_the_file_of_rounds_is_strict_json(stages, ledger):
    add_round(ledger, Round(stages.rounds.goal, Reached(1e12, 12), "It goes on"), "width")
    (entry,) = json.loads(tracking.read_artifact(ledger, ROUNDS, lambda path: path.read_text()))
    assert "span" not in entry


def test_the_trials_that_a_round_chose_are_wanted_after_an_interruption(stages, grown, ledger):
    _, runs, _ = grown
    first = [run for run in runs if run.trial_id in {t.trial_id for t in stages.planned}]
    settled = {run.trial_id: run.loss for run in first}
    chosen = stages.next(first, settled).round
    add_round(ledger, chosen, "width")
    points = last_points(ledger, stages.rounds.goal)
    again = replace(stages, rounds=replace(stages.rounds, chosen=points))
    begun = run_of(chosen.trials[0], 2.0)
    stage = again.next([*first, begun], {**settled, begun.trial_id: 2.0})
    wanted = {trial.trial_id for trial in stage.trials}
    assert {trial.trial_id for trial in chosen.trials} <= wanted
    assert stage.round is None
    assert last_points(ledger, replace(stages.rounds.goal, until=1.5)) == ()


def test_runs_that_diverged_cost_their_budget(stages):
    runs = [run_of(trial, 2.0) for trial in stages.planned[:4]]
    lost = replace(runs[0], flops=math.nan, loss=math.nan, state="diverged")
    found = stages.rounds.next(stages.rows, stages.planned[:4], [lost, *runs[1:]])
    assert found.reached.flops == pytest.approx(4e10, rel=0.01)


@pytest.mark.slow
def test_trials_at_several_rates_cost_all_of_them(grown):
    _, runs, _ = grown
    goal = Goal(1e13, 1.02, max_flops=sum(run.flops for run in runs) + 2e10)
    task = Task(Net, "width", dataset=data(), loss_fn=torch.nn.functional.cross_entropy)
    rates = replace(NO_PILOT, lr_multipliers=(0.5, 1.0, 2.0))
    rows = make_plan(task, PlanRequest([1e10, 1e11], None, rates)).rows
    begun = begun_trials(rows, runs, [run.compute_budget for run in runs])
    found = Rounds(goal.between([1e10, 1e12])).next(rows, begun, runs)
    assert sum(trial.flops for trial in found.trials) <= 2e10 / 3


def test_budgets_chosen_for_a_time_must_reach_the_target():
    task = Task(Net, "width", dataset=data(), loss_fn=torch.nn.functional.cross_entropy)
    request = PlanRequest("2h", None, NO_PILOT, goal=Goal(1e17, 1.25))
    chosen = ChosenBudgets("2 h", "", (1e10, 1e12), ())
    with pytest.raises(ArgumentError, match="nothing is predicted beyond 1000 times"):
        make_plan(task, request, choose=lambda *_: chosen)


def test_a_target_needs_four_sizes():
    task = Task(Net, "width", dataset=data(), loss_fn=torch.nn.functional.cross_entropy)
    request = PlanRequest([1e10, 1e12], [50, 100, 200], NO_PILOT, goal=Goal(1e13, 1.25))
    with pytest.raises(ArgumentError, match="sizes: with a target, expected at least 4, got 3"):
        make_plan(task, request)
