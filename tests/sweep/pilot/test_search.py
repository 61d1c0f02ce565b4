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


def best_of(found, losses, size):
    of_size = [trial for trial in found.trials if trial.size == size]
    return min(of_size, key=lambda trial: losses[trial.trial_id])


@pytest.mark.parametrize(("rate", "batch"), [(0.01, 4), (0.15, 16), (0.0015, 1)])
def test_the_best_cell_of_each_size_is_surrounded(lattice, rate, batch):
    """From the rule, up or down, in rate and in batch; a batch of one example is an edge."""
    recipe = planted_recipe(rate, batch)
    found, losses = finished(lattice, lambda trial: planted_loss(trial, recipe))
    assert not found.cut_short
    for size in {place.cost.size for place in lattice.places}:
        best = best_of(found, losses, size)
        tried = {(t.learning_rate, t.batch_size) for t in found.trials if t.size == size}
        for factor in (0.5, 2):
            assert any(r == pytest.approx(best.learning_rate * factor) for r, _ in tried)
        assert best.batch_size == 1 or (best.learning_rate, best.batch_size // 2) in tried
        cost = planted_loss(best, recipe)
        at_vertex = min(planted_loss(t, recipe) for t in found.trials if t.size == size)
        assert cost == at_vertex


def test_the_best_cell_of_each_size_has_two_seeds(lattice):
    recipe = planted_recipe()
    found, losses = finished(lattice, lambda trial: planted_loss(trial, recipe, noise=0.01))
    seeds = {}
    for trial in found.trials:
        seeds.setdefault((trial.size, trial.learning_rate, trial.batch_size), []).append(trial)
    for size in {place.cost.size for place in lattice.places}:
        cells = {key: trials for key, trials in seeds.items() if key[0] == size}
        means = {
            key: sum(math.log(losses[t.trial_id]) for t in trials) / len(trials)
            for key, trials in cells.items()
        }
        assert len(cells[min(means, key=means.get)]) >= 2


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
