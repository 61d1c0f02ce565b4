import math

import pytest
from pilots import planted_loss, planted_recipe, rows_of

from flops_fit.sweep.pilot.lattice import Lattice
from flops_fit.sweep.pilot.places import places
from flops_fit.sweep.pilot.search import search

BUDGETS = (6e7, 1.3e8, 2.8e8, 6e8)


@pytest.fixture
def lattice():
    rows, _ = rows_of()
    return Lattice.of(rows, places(rows, BUDGETS))


def finished(lattice, loss_of, most_flops=math.inf):
    losses = {}
    for _ in range(100):
        found = search(lattice, losses, most_flops)
        if found.finished:
            return found, losses
        new = [trial for trial in found.trials if trial.trial_id not in losses]
        assert new, "it waits for nothing"
        losses |= {trial.trial_id: loss_of(trial) for trial in new}
    raise AssertionError("the search does not end")


def trials_of(found, place):
    where = place.budget, place.cost.size
    return [trial for trial in found.trials if (trial.compute_budget, trial.size) == where]


def best_of(found, losses, place):
    return min(trials_of(found, place), key=lambda trial: losses[trial.trial_id])


@pytest.mark.parametrize(("rate", "batch"), [(0.01, 4), (0.15, 16), (0.0015, 1)])
def test_no_neighbour_of_the_best_cell_of_a_place_is_better(lattice, rate, batch):
    """From the rule, up or down, in rate and in batch; a batch of one example is an edge."""
    recipe = planted_recipe(rate, batch)
    found, losses = finished(lattice, lambda trial: planted_loss(trial, recipe))
    assert not found.cut_short
    for place in lattice.places:
        best = best_of(found, losses, place)
        N, D, rate, batch = best.num_params, best.num_tokens, best.learning_rate, best.batch_size
        beside = [(rate / 2, batch), (rate * 2, batch), (rate, batch * 2)]
        beside += [(rate, batch // 2)] if batch > 1 else []
        least = min(float(recipe.excess(N, D, *neighbour)) for neighbour in beside)
        assert float(recipe.excess(N, D, rate, batch)) < least + 0.005


def test_the_two_best_cells_of_each_size_have_two_seeds(lattice):
    recipe = planted_recipe()
    found, _ = finished(lattice, lambda trial: planted_loss(trial, recipe, noise=0.01))
    repeats = [trial for trial in found.trials if trial.seed > 0]
    places = {(place.budget, place.cost.size) for place in lattice.places}
    for budget, size in places:
        of_place = [t for t in repeats if (t.compute_budget, t.size) == (budget, size)]
        assert len(of_place) == 2


@pytest.mark.parametrize("rate", [1e-4, 3.0])
def test_a_rate_far_from_the_rule_is_found_within_what_a_pilot_may_cost(lattice, rate):
    """As an optimiser of the user's own may want it."""
    recipe = planted_recipe(rate)
    found, losses = finished(
        lattice, lambda trial: planted_loss(trial, recipe, noise=0.003), 48 * 2e7
    )
    assert not found.cut_short
    best = min(found.trials, key=lambda trial: losses[trial.trial_id])
    wanted = recipe.learning_rate(best.num_params, best.num_tokens, best.batch_size)
    assert best.learning_rate == pytest.approx(wanted, rel=1.0)


def test_losses_below_zero_are_compared_as_they_are(lattice):
    recipe = planted_recipe(rate=0.05)
    found, losses = finished(lattice, lambda trial: planted_loss(trial, recipe) - 15)
    assert min(losses.values()) < 0 < max(losses.values())
    best = best_of(found, losses, lattice.places[0])
    excess = recipe.excess(best.num_params, best.num_tokens, best.learning_rate, best.batch_size)
    assert excess < 0.02


def test_it_is_a_function_of_its_losses(lattice):
    """A search that starts over with all losses at hand asks for the same cells."""
    recipe = planted_recipe()
    found, losses = finished(lattice, lambda trial: planted_loss(trial, recipe, noise=0.01))
    assert search(lattice, losses, math.inf) == found


def test_a_search_that_has_spent_what_it_may_ends(lattice):
    recipe = planted_recipe(rate=3.0)
    allowed = 9 * lattice.places[0].budget
    found, _ = finished(lattice, lambda trial: planted_loss(trial, recipe), allowed)
    assert found.cut_short
    assert sum(trial.flops for trial in found.trials) <= allowed


def test_cells_that_diverge_are_moved_away_from(lattice):
    recipe = planted_recipe(rate=0.004)
    found, losses = finished(
        lattice,
        lambda trial: math.nan if trial.learning_rate > 0.03 else planted_loss(trial, recipe),
    )
    for size in {place.cost.size for place in lattice.places}:
        finite = {k: v for k, v in losses.items() if math.isfinite(v)}
        of_size = [t for t in found.trials if t.size == size and t.trial_id in finite]
        assert min(of_size, key=lambda t: finite[t.trial_id]).learning_rate < 0.03


def test_all_cells_of_a_place_begin_alike(lattice):
    recipe = planted_recipe()
    found, _ = finished(lattice, lambda trial: planted_loss(trial, recipe))
    begun = {(trial.size, trial.seed, trial.at_own_rate) for trial in found.trials}
    assert len(begun) == len({(size, seed) for size, seed, _ in begun})
