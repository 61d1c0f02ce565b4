import pytest
from pilots import DECADE, planted_recipe, rows_of, run_of, stages_of, trained
from sweeps import UNLIMITED

import flops_fit
from flops_fit.sweep.pilot.ends import check_trials


def roles(runs):
    return {role: [run for run in runs if run.role == role] for role in ("pilot", "sweep", "check")}


def ids(trials):
    return {trial.trial_id for trial in trials}


@pytest.fixture(scope="module")
def whole():
    """A sweep of a decade, trained to its end on planted losses."""
    recipe = planted_recipe(rate=0.05)
    stage, runs, rounds = trained(stages_of(), recipe, noise=0.002)
    return recipe, stage, runs, rounds


def test_each_trial_of_the_grid_is_trained_by_what_the_pilot_found(whole):
    recipe, stage, runs, _ = whole
    assert len(roles(runs)["sweep"]) >= len(stage.grid) == 28
    for trial in stage.grid:
        N, D = trial.num_params, trial.num_tokens
        excess = float(recipe.excess(N, D, trial.learning_rate, trial.batch_size))
        least = min(
            float(recipe.excess(N, D, recipe.learning_rate(N, D, b), b))
            for b in range(1, max(2, int(D / 1000) + 1))
        )
        assert excess < least + 0.02


def test_trials_have_a_thousand_steps_where_their_batch_can_shrink(whole):
    _, stage, _, _ = whole
    for trial in stage.grid:
        assert trial.steps >= 990 or trial.batch_size == 1


def test_pilot_and_check_cost_what_was_announced(whole):
    _, _, runs, _ = whole
    stages = stages_of()
    by_role = {role: sum(run.flops for run in of) for role, of in roles(runs).items()}
    assert 0 < by_role["pilot"] <= stages.pilot.most_flops
    assert by_role["check"] == pytest.approx(stages.pilot.check_flops, rel=0.2)
    total = sum(trial.flops for trial in stages.planned)
    assert stages.pilot.most_flops <= 0.15 * total
    assert by_role["pilot"] + by_role["check"] <= 0.2 * total


def test_the_check_is_made_at_both_ends_of_a_row(whole):
    _, _, runs, _ = whole
    checks = roles(runs)["check"]
    assert len({run.compute_budget for run in checks}) == 1
    sizes = {run.num_params for run in checks}
    row = [
        run.num_params
        for run in roles(runs)["sweep"]
        if run.compute_budget == checks[0].compute_budget
    ]
    assert sizes == {min(row), max(row)}


def test_what_is_left_to_come_falls_to_nothing():
    stages, recipe = stages_of(), planted_recipe()
    first = stages.next([], {})
    total = sum(trial.flops for trial in stages.planned)
    assert total < first.to_come < 1.21 * total
    assert ids(first.grid) == ids(stages.planned)
    last, _, _ = trained(stages, recipe)
    assert last.to_come == 0
    assert last.law is not None


def test_a_sweep_that_starts_over_asks_for_nothing(whole):
    _, stage, runs, _ = whole
    again = stages_of().next(runs, {run.trial_id: run.loss for run in runs})
    assert ids(again.trials) <= {run.trial_id for run in runs}
    assert again.messages == stage.messages


@pytest.mark.parametrize("num_runs", [3, 20, 33, 50, 64])
def test_an_interrupted_sweep_goes_on_where_it_was(whole, num_runs):
    """In the pilot, in the sweep and in the check: what was trained is not trained again."""
    recipe, stage, runs, _ = whole
    last, after, _ = trained(stages_of(), recipe, noise=0.002, runs=runs[:num_runs])
    assert ids(last.grid) == ids(stage.grid)
    assert {run.trial_id for run in after} == {run.trial_id for run in runs}


@pytest.mark.slow
def test_an_added_budget_reuses_pilot_and_rows(whole):
    recipe, _, runs, _ = whole
    more = stages_of((*DECADE, 1.3e9))
    _, after, _ = trained(more, recipe, noise=0.002, runs=runs)
    new = roles([run for run in after if run.trial_id not in {r.trial_id for r in runs}])
    assert len(new["pilot"]) <= 8  # the larger sweep may afford more cells
    assert len([run for run in new["sweep"] if run.compute_budget == 1.3e9]) == 7
    assert len(new["sweep"]) <= 9  # of the others at most a few that turned out to be off


@pytest.mark.slow
def test_a_smaller_budget_goes_on_with_the_same_pilot(whole):
    recipe, _, runs, _ = whole
    more = stages_of((3e7, *DECADE))
    _, after, _ = trained(more, recipe, noise=0.002, runs=runs)
    pilots = {run.compute_budget for run in roles(after)["pilot"]}
    assert pilots == {run.compute_budget for run in roles(runs)["pilot"]}


@pytest.mark.slow
def test_few_trials_that_are_off_are_trained_again():
    """The check finds that the largest sizes want another rate; they are few, and trained again."""
    stages, recipe = stages_of(), planted_recipe(rate=0.05)
    _, runs, _ = trained(stages, recipe)
    trials = {
        trial.trial_id: trial
        for trial in stages.next(runs, {run.trial_id: run.loss for run in runs}).trials
    }
    rows, _ = rows_of()
    smallest = min(roles(runs)["sweep"], key=lambda run: (run.compute_budget, run.num_params))
    trial = trials[smallest.trial_id]
    wrong = rows.trial(
        trial.compute_budget, rows.finder.costs[trial.size], trial.size_index,
        batch=trial.batch_size, rate=trial.learning_rate * 8,
    )  # fmt: skip
    kept = [run for run in runs if run is not smallest] + [run_of(wrong, 3.0)]
    stage = stages.next(kept, {run.trial_id: run.loss for run in kept})
    assert ids(stage.grid) - {run.trial_id for run in kept}
    assert any("trained again" in message for message in stage.messages)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "tuned"),
    [
        (flops_fit.Recipe(max_epochs=1e9, batch_size=8), {"learning_rate"}),
        (flops_fit.Recipe(max_epochs=1e9, learning_rate=0.02), {"batch_size"}),
    ],
)
def test_what_is_given_is_not_looked_for(recipe, tuned):
    stages = stages_of(recipe=recipe)
    _, runs, _ = trained(stages, planted_recipe())
    pilot = roles(runs)["pilot"]
    size = max(pilot, key=lambda run: run.num_params).num_params
    of_size = [run for run in pilot if run.num_params == size]
    varied = {
        name
        for name in ("learning_rate", "batch_size")
        if len({getattr(run, name) for run in of_size}) > 1
    }
    assert set(stages.pilot.tuned) == varied == tuned


def test_without_anything_to_find_there_is_no_pilot():
    stages = stages_of(recipe=UNLIMITED)
    assert stages.pilot is None
    stage = stages.next([], {})
    assert stage.trials == stages.planned
    assert stage.law is None


def test_sizes_are_added_by_the_found_recipe():
    """A law whose optimum lies beyond the rows: the sizes added have the found rate and batch."""
    stages, recipe = stages_of(extend=True), planted_recipe(rate=0.05)
    stage, _, _ = trained(stages, recipe)
    grid = ids(stage.grid)
    beyond = [t for t in stage.trials if t.role == "sweep" and t.trial_id not in grid]
    for trial in beyond:
        N, D = trial.num_params, trial.num_tokens
        rate = float(stage.law.learning_rate(N, D, trial.batch_size))
        assert trial.learning_rate == pytest.approx(rate, rel=0.01)


def test_checks_halve_and_double_what_is_tuned():
    rows, trials = rows_of()
    trial = next(trial for trial in trials if trial.batch_size >= 4)
    checks = check_trials(rows, trial)
    around = {
        (round(c.learning_rate / trial.learning_rate, 2), c.batch_size / trial.batch_size)
        for c in checks
    }
    low = (trial.batch_size // 2) / trial.batch_size
    assert around == {(0.5, 1.0), (2.0, 1.0), (1.0, low), (1.0, 2.0)}
    assert all(c.role == "check" and c.at_own_rate == trial.trial_id for c in checks)
    cost = rows.finder.costs[trial.size]
    single = rows.trial(trial.compute_budget, cost, trial.size_index, batch=1)
    assert len(check_trials(rows, single)) == 3
