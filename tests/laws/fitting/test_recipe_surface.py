from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from flops_fit.laws.fitting.recipe_surface import fit_recipe
from tests.helpers.shared_data import read_shared

RATES, BATCHES = (0.0025, 0.005, 0.01, 0.02, 0.04), (1, 2, 4, 8, 16)
SIZES = (1000, 2000, 4000)
BUDGET = 1e9
N0, D0 = 2000, BUDGET / 6 / 2000
CELL = ["compute_budget", "num_params", "num_tokens", "learning_rate", "batch_size", "loss"]


@dataclass(frozen=True)
class Planted:
    """A law of rate and batch about (N0, D0), and the bowl around it."""

    rate: float = 0.01
    p: float = -0.3
    q: float = 0.0
    batch: float = 4.0
    r: float = 0.6
    c_r: float = 0.03
    c_b: float = 0.03
    rho: float = -0.4

    def best(self, N, D):
        """ln rate* and ln batch*."""
        n, d = np.log(N / N0), np.log(D / D0)
        return np.log(self.rate) + self.p * n + self.q * d, np.log(self.batch) + self.r * d

    def cells(self, rates=RATES, batches=BATCHES, *, sizes=SIZES, budget=BUDGET, noise=0.0, rng=0):
        """A grid of cells at each size."""
        rng = np.random.default_rng(rng)
        grid = [(N, budget / 6 / N, a, b) for N in sizes for a in rates for b in batches]
        N, D, rate, batch = np.array(grid, float).T
        best_rate, best_batch = self.best(N, D)
        x, y = np.log(rate) - best_rate, np.log(batch) - best_batch
        tilt = 2 * self.rho * np.sqrt(self.c_r * self.c_b)
        height = self.c_r * x**2 + self.c_b * y**2 + tilt * x * y
        loss = 2.5 * (N / N0) ** -0.03 * np.exp(height + noise * rng.normal(size=len(N)))
        return pd.DataFrame(
            dict(zip(CELL, (np.full(len(N), budget), N, D, rate, batch, loss), strict=True))
        )


LAWS = {
    "usual": Planted(),
    "steep": Planted(c_r=0.1, c_b=0.08, p=-0.5, q=0.3),
    "flat": Planted(c_r=0.008, c_b=0.006, rho=-0.6),
    "rate rises with N": Planted(p=0.1, q=-0.4, r=0.5),
}
each_law = pytest.mark.parametrize("planted", LAWS.values(), ids=LAWS)


def at_centre(law):
    """Rate and batch at (N0, D0)."""
    return float(law.learning_rate(N0, D0)), float(law.batch_size(N0, D0))


def covers(interval, value):
    low, high = interval
    return low < value < high


@each_law
def test_planted_law_is_found_where_nothing_is_noisy(planted):
    law = fit_recipe(planted.cells())
    for N in SIZES:
        D = BUDGET / 6 / N
        rate, batch = np.exp(planted.best(N, D))
        assert law.learning_rate(N, D) == pytest.approx(rate, rel=0.1)
        assert law.batch_size(N, D) == pytest.approx(batch, rel=0.15)
        assert law.excess(N, D, rate, batch) < 5e-4
    found = law.intervals["value"]
    assert found["c_r"] == pytest.approx(planted.c_r, rel=0.3)
    assert found["c_b"] == pytest.approx(planted.c_b, rel=0.35)


def drawn(rng):
    """A law as likely as any before anything is seen."""
    s, t = rng.normal(-0.16, 0.06), rng.normal(-0.2, 0.3)
    return Planted(
        rate=0.01 * np.exp(rng.normal(0, 0.3)),
        p=s + t,
        q=s - t,
        batch=4 * np.exp(rng.normal(0, 0.3)),
        r=rng.normal(0.6, 0.15),
        c_r=0.03 * np.exp(rng.normal(0, 0.7)),
        c_b=0.03 * np.exp(rng.normal(0, 0.7)),
        rho=np.tanh(rng.normal(-0.42, 0.3)),
    )


@pytest.mark.parametrize("noise", [0.003, 0.01, 0.03])
def test_intervals_cover_at_the_cells_and_far_from_them(noise):
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(30):
        planted = drawn(rng)
        cells = planted.cells(RATES[1:4], BATCHES[1:4], noise=noise, rng=rng)
        # One run in twenty stays on a plateau.
        stuck = rng.random(len(cells)) < 0.05
        law = fit_recipe(cells.assign(loss=cells["loss"] * np.where(stuck, 1.08, 1)))
        for reach in (1, 10, 100):
            N, D = N0 * reach**0.5, D0 * reach**0.5
            rate, batch = np.exp(planted.best(N, D))
            hits.append(covers(law.learning_rate_interval(N, D), rate))
            hits.append(covers(law.batch_size_interval(N, D), batch))
    assert np.mean(np.reshape(hits, (30, 6)), axis=0).min() >= 0.85


@each_law
@pytest.mark.parametrize("times", [1.08, 0.96], ids=["stuck", "lucky"])
@pytest.mark.parametrize("place", [1, 10, 22])
def test_one_odd_seed_does_not_move_the_law(planted, times, place):
    cells = planted.cells(RATES[1:4], BATCHES[1:4], noise=0.003)
    law = fit_recipe(cells)
    cells.loc[place, "loss"] *= times
    odd = fit_recipe(cells)
    assert law.excess(N0, D0, *at_centre(odd)) < 0.003


@pytest.mark.parametrize("best", [0.5, 0.25, 0.1])
@pytest.mark.parametrize("c_b", [0.015, 0.03, 0.1])
def test_best_batch_below_the_cells_stays_near_them(best, c_b):
    law = fit_recipe(Planted(batch=best, c_b=c_b).cells(batches=(1, 2, 4), noise=0.005))
    _, batch = at_centre(law)
    low, high = law.batch_size_interval(N0, D0)
    assert 0.25 < batch < 1.5
    assert high / low > 3
    assert low < max(best, 0.25) < high


@pytest.mark.parametrize("best", [1.0, 0.5, 0.25])
def test_rate_for_a_batch_of_one_is_right_where_less_would_be_best(best):
    planted = Planted(batch=best)
    law = fit_recipe(planted.cells(batches=(1, 2, 4), noise=0.005))
    follows = planted.rate * (1 / best) ** -planted.rho
    assert law.learning_rate(N0, D0, 1) == pytest.approx(follows, rel=0.25)


@pytest.mark.parametrize("limit", [0.03, 0.015, 0.0075])
def test_diverged_runs_keep_the_rate_below_them(limit):
    cells = Planted().cells(batches=(2, 4, 8), noise=0.003)
    cells.loc[cells["learning_rate"] > limit, "loss"] = np.nan
    rate, _ = at_centre(fit_recipe(cells))
    assert 0.004 < rate < min(limit, 0.012)


@pytest.mark.parametrize("loss", [np.nan, np.inf, 0.0])
def test_a_loss_that_is_no_number_counts_as_diverged(loss):
    cells = Planted().cells(noise=0.003)
    high = cells["learning_rate"] > 0.03
    expected = fit_recipe(cells.assign(loss=cells["loss"].where(~high)))
    assert fit_recipe(cells.assign(loss=cells["loss"].where(~high, loss))) == expected


@pytest.mark.parametrize(
    "cells",
    [
        Planted().cells().iloc[:0],
        Planted().cells().assign(loss=np.nan),
        Planted().cells([0.01], [4]),
        Planted().cells([0.01], [4], sizes=(2000,)),
    ],
    ids=["no cells", "all diverged", "one cell a size", "one cell"],
)
def test_cells_that_say_nothing_give_no_law(cells):
    assert fit_recipe(cells) is None


@pytest.mark.parametrize("name", ["learning_rate", "batch_size"])
def test_what_is_tuned_must_differ(name):
    cells = Planted().cells(RATES if name == "batch_size" else [0.01], BATCHES[:1])
    assert fit_recipe(cells, tuned=(name,)) is None


@pytest.mark.parametrize("growth", [0.0, 0.4, 0.8])
def test_rate_alone_has_the_batches_of_the_runs(growth):
    cells = Planted(c_b=0).cells(batches=(8,), noise=0.003)
    cells["batch_size"] = 8 * (cells["num_tokens"] / D0) ** growth
    law = fit_recipe(cells, tuned=("learning_rate",))
    assert law.tuned == ("learning_rate",)
    assert law.batch_size(5000, 3 * D0) == pytest.approx(8 * 3**growth)
    assert law.batch_size_interval(N0, D0) == pytest.approx((8, 8))
    assert law.learning_rate(N0, D0) == pytest.approx(0.01, rel=0.1)
    assert law.excess(N0, D0, law.learning_rate(N0, D0), 64) == pytest.approx(0, abs=1e-9)
    assert law.excess(N0, D0, 0.02, 8) == pytest.approx(0.03 * np.log(2) ** 2, rel=0.2)


@pytest.mark.parametrize("p", [0.0, -0.3, 0.2])
def test_batch_alone_has_the_rates_of_the_runs(p):
    cells = Planted(c_r=0).cells(rates=(0.01,), noise=0.003)
    cells["learning_rate"] = 0.01 * (cells["num_params"] / N0) ** p
    law = fit_recipe(cells, tuned=("batch_size",))
    assert law.tuned == ("batch_size",)
    for N in SIZES:
        D = BUDGET / 6 / N
        assert law.learning_rate(N, D) == pytest.approx(0.01 * (N / N0) ** p)
    assert law.learning_rate_interval(N0, D0) == pytest.approx((0.01, 0.01))
    assert law.batch_size(N0, D0) == pytest.approx(4, rel=0.1)
    assert law.excess(N0, D0, 0.05, law.batch_size(N0, D0)) == pytest.approx(0, abs=1e-9)


@each_law
def test_order_of_the_runs_changes_nothing(planted):
    cells = planted.cells(noise=0.01)
    law = fit_recipe(cells)
    assert fit_recipe(cells) == law
    assert fit_recipe(cells.sample(frac=1, random_state=0)) == law


@pytest.mark.parametrize("last", [1e-15, -3e-15, 1e-14])
def test_last_bits_of_the_losses_change_no_recipe(last):
    cells = Planted().cells(noise=0.01)
    assert (
        fit_recipe(cells.assign(loss=cells["loss"] * (1 + last))).vector == fit_recipe(cells).vector
    )


@pytest.mark.parametrize("times", [2, 3, 5])
def test_a_run_told_twice_counts_once(times):
    cells = Planted().cells(noise=0.01)
    assert fit_recipe(pd.concat([cells] * times)) == fit_recipe(cells)


@pytest.mark.parametrize("name", ["learning_rate", "batch_size", "num_tokens"])
def test_runs_of_which_something_is_unknown_are_left_out(name):
    cells = Planted().cells(noise=0.01)
    unknown = cells.head(3).assign(loss=1.0, **{name: np.nan})
    assert fit_recipe(pd.concat([cells, unknown])) == fit_recipe(cells)


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.04])
def test_noise_is_that_between_seeds(noise):
    seeds = [Planted().cells(RATES[1:4], BATCHES[1:4], noise=noise, rng=s) for s in range(3)]
    law = fit_recipe(pd.concat(seeds))
    assert law.noise == pytest.approx(noise, rel=0.5)


@pytest.mark.parametrize("seeds", [4, 6, 8])
def test_seeds_narrow_the_intervals(seeds):
    def width(count, first):
        runs = [Planted().cells(noise=0.04, rng=first + seed) for seed in range(count)]
        low, high = fit_recipe(pd.concat(runs)).learning_rate_interval(N0, D0)
        return np.log(high / low)

    firsts = (0, 100, 200)
    assert sum(width(seeds, f) for f in firsts) < 0.95 * sum(width(1, f) for f in firsts)


@pytest.mark.parametrize("per_example", [1.0, 64.0, 2048.0])
def test_law_knows_what_it_was_found_on(per_example):
    small, large = Planted().cells(), Planted().cells(sizes=(3000,), budget=4e9)
    large.loc[0, "loss"] = np.nan
    law = fit_recipe(pd.concat([small, large]), tokens_per_example=per_example)
    assert law.largest == (4000, 4e9 / 6 / 3000)
    assert law.largest_budget == 4e9
    assert law.tokens_per_example == per_example
    assert law.centre[0] == pytest.approx(np.prod([1000, 2000, 4000, 3000]) ** 0.25, rel=0.01)


def step_law_cells():
    """1,404 public runs of Step Law (Li et al. 2025), sequences of 2,048 tokens."""
    table = read_shared("public/steplaw_lr_batch.csv")
    names = {"N": "num_params", "D": "num_tokens", "lr": "learning_rate"}
    cells = table.rename(columns={**names, "batch_sequences": "batch_size"})
    return cells.assign(compute_budget=6 * cells["num_params"] * cells["num_tokens"])


def near_best(group):
    """A parabola of ln L within 2 % of the best: its vertex, and its height over that."""
    y = np.log(group["loss"])
    near = y - y.min() < 0.02

    def terms(rate, batch):
        return np.stack([np.ones_like(rate), rate, batch, rate**2, batch**2, rate * batch], -1)

    logs = np.log(group.loc[near, ["learning_rate", "batch_size"]].to_numpy(float)).T
    fit = np.linalg.lstsq(terms(*logs), y[near], rcond=None)[0]
    bend = np.array([[2 * fit[3], fit[5]], [fit[5], 2 * fit[4]]])
    vertex = -np.linalg.solve(bend, fit[1:3])
    least = terms(*vertex) @ fit
    return np.exp(vertex), lambda rate, batch: terms(np.log(rate), np.log(batch)) @ fit - least


@pytest.mark.parametrize("every", [1, 2, 3], ids=["all cells", "every second", "every third"])
def test_two_smallest_sizes_of_step_law_suit_the_largest(every):
    cells = step_law_cells()
    small = cells["num_params"] < 4e8
    law = fit_recipe(cells[small].iloc[::every], tokens_per_example=2048)
    for (N, D), group in cells[~small].groupby(["num_params", "num_tokens"]):
        (rate, batch), height = near_best(group)
        assert height(law.learning_rate(N, D), law.batch_size(N, D)) < 0.003
        assert covers(law.learning_rate_interval(N, D), rate)
        assert covers(law.batch_size_interval(N, D), batch)
